//! Templates, and bindings that say which nodes are to be as a template says.

mod comparison;
mod error;
mod lately;
mod reconciler;

use std::sync::Arc;

use knm_model::{
    Access, Actor, AppliedTemplate, Binding, ClusterName, Definition, DefinitionKind, DefinitionName, QueryError,
    RawBinding, RawTemplate, Selector, Template, Timestamp, excerpt,
};
use knm_ports::{Clock, Definitions, StorageError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use comparison::{Comparison, DriftedNode, StaleCluster};
pub use error::TemplateError;
pub use reconciler::TemplateReconciler;

use crate::inventory::{Inventory, InventoryError};
use crate::visible::Visible;

/// The most templates that there may be, and the most bindings.
const MOST: usize = 1_000;
/// How often another writer may get in between before that is an error.
const ATTEMPTS: usize = 5;

/// Keeps templates and bindings, and compares nodes with them.
pub struct Templates {
    inventory: Arc<Inventory>,
    store: Arc<dyn Definitions>,
    clock: Arc<dyn Clock>,
}

/// A version of a template or binding.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned<T> {
    /// Its name.
    pub name: DefinitionName,
    /// Its version, counted from 1.
    pub version: u32,
    /// When this version was written.
    pub changed_at: Timestamp,
    /// Who wrote it.
    pub changed_by: String,
    /// What it says.
    pub content: T,
}

/// What is written down: a template or a binding.
pub trait Content: Clone + Serialize + DeserializeOwned + Send + Sync {
    /// What it defines.
    const KIND: DefinitionKind;

    /// Checks it.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    fn check(&self) -> Result<(), Vec<QueryError>>;
}

impl Content for RawTemplate {
    const KIND: DefinitionKind = DefinitionKind::Template;

    fn check(&self) -> Result<(), Vec<QueryError>> {
        Template::parse(self).map(drop)
    }
}

impl Content for RawBinding {
    const KIND: DefinitionKind = DefinitionKind::Binding;

    fn check(&self) -> Result<(), Vec<QueryError>> {
        Binding::parse(self).map(drop)
    }
}

impl Templates {
    /// Templates and bindings for the nodes of `inventory`, kept in `store`.
    pub fn new(inventory: Arc<Inventory>, store: Arc<dyn Definitions>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            inventory,
            store,
            clock,
        })
    }

    /// All of them, sorted by name.
    ///
    /// # Errors
    /// What the store says.
    pub async fn list<T: Content>(&self) -> Result<Vec<Versioned<T>>, TemplateError> {
        let found = self.store.list(T::KIND).await?;
        found.into_iter().filter_map(|one| versioned(one).transpose()).collect()
    }

    /// The latest version of one of them, or `version`, which may be one of a time before it was deleted.
    ///
    /// # Errors
    /// [`TemplateError::Unknown`], [`TemplateError::UnknownVersion`], or what the store says.
    pub async fn find<T: Content>(&self, name: &str, version: Option<u32>) -> Result<Versioned<T>, TemplateError> {
        let versions = self.stored::<T>(name).await?;
        let found = match version {
            None => versions.into_iter().next(),
            Some(version) => versions.into_iter().find(|one| one.version == version),
        };
        match (found.map(versioned).transpose()?.flatten(), version) {
            (Some(found), _) => Ok(found),
            (None, Some(version)) => Err(TemplateError::UnknownVersion {
                kind: T::KIND,
                name: excerpt(name),
                version,
            }),
            (None, None) => Err(unknown::<T>(name)),
        }
    }

    /// Each version of one of them, the latest first; `None` stands for a deletion.
    ///
    /// # Errors
    /// [`TemplateError::Unknown`] if there never was one, or what the store says.
    pub async fn versions<T: Content>(&self, name: &str) -> Result<Vec<Versioned<Option<T>>>, TemplateError> {
        let versions = self.stored::<T>(name).await?;
        versions.into_iter().map(read).collect()
    }

    /// Writes the first version of one of them, or the next one of a deleted one.
    ///
    /// # Errors
    /// [`TemplateError`]; then nothing is written.
    pub async fn create<T: Content>(&self, name: &str, content: T, by: &Actor) -> Result<Versioned<T>, TemplateError> {
        let mut errors = content.check().err().unwrap_or_default();
        let parsed = DefinitionName::parse(name);
        let parsed = match parsed {
            Ok(parsed) if errors.is_empty() => parsed,
            parsed => {
                errors.extend(parsed.err().map(|error| QueryError::new("name", error.to_string())));
                return Err(TemplateError::Invalid { errors });
            }
        };
        if MOST <= self.store.list(T::KIND).await?.len() {
            return Err(TemplateError::TooMany {
                kind: T::KIND,
                most: MOST,
            });
        }
        let taken = || TemplateError::Taken {
            kind: T::KIND,
            name: parsed.clone(),
        };
        let latest = self.store.versions(T::KIND, &parsed).await?.into_iter().next();
        if latest.as_ref().is_some_and(|latest| latest.content.is_some()) {
            return Err(taken());
        }
        let next = latest.map_or(1, |latest| latest.version.saturating_add(1));
        match self.write(&parsed, next, Some(&content), by).await {
            Ok(definition) => Ok(with(definition, content)),
            Err(TemplateError::Storage(StorageError::Conflict { .. })) => Err(taken()),
            Err(error) => Err(error),
        }
    }

    /// Writes the next version of one of them. `known`: only if one of these is its latest.
    ///
    /// # Errors
    /// [`TemplateError`]; then nothing is written.
    pub async fn update<T: Content>(
        &self,
        name: &str,
        known: Option<&[String]>,
        content: T,
        by: &Actor,
    ) -> Result<Versioned<T>, TemplateError> {
        content.check().map_err(|errors| TemplateError::Invalid { errors })?;
        let definition = self.next::<T>(name, known, Some(&content), by).await?;
        Ok(with(definition, content))
    }

    /// Deletes one of them; its versions stay readable. `known`: only if one of these is its latest.
    ///
    /// # Errors
    /// [`TemplateError`]; then it stays.
    pub async fn delete<T: Content>(
        &self,
        name: &str,
        known: Option<&[String]>,
        by: &Actor,
    ) -> Result<(), TemplateError> {
        if T::KIND == DefinitionKind::Template {
            let bindings: Vec<Versioned<RawBinding>> = self.list().await?;
            let used: Vec<DefinitionName> = bindings
                .into_iter()
                .filter(|binding| binding.content.template == name)
                .map(|binding| binding.name)
                .collect();
            if !used.is_empty() {
                return Err(TemplateError::Used {
                    template: name.to_owned(),
                    bindings: used,
                });
            }
        }
        self.next::<T>(name, known, None, by).await.map(drop)
    }

    /// Compares nodes with a template: those of `cluster`, or of all of them, that `selector` finds and that may be seen.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub async fn preview(
        &self,
        name: &str,
        version: Option<u32>,
        cluster: Option<&str>,
        selector: &Selector,
        access: &Access,
    ) -> Result<Comparison, TemplateError> {
        let template: Versioned<RawTemplate> = self.find(name, version).await?;
        let visible = self.inventory.visible_to(access);
        let cluster = cluster.map(|cluster| visible.cluster(cluster)).transpose()?;
        compare(
            visible,
            &template,
            cluster.as_ref().map(|status| &status.name),
            selector,
        )
    }

    /// Compares the nodes of a binding with its template, as far as they may be seen.
    ///
    /// # Errors
    /// [`TemplateError`], such as [`TemplateError::Unknown`] for a template that is gone.
    pub async fn drift(&self, binding: &RawBinding, access: &Access) -> Result<Comparison, TemplateError> {
        let binding = Binding::parse(binding).map_err(|errors| TemplateError::Invalid { errors })?;
        let template: Versioned<RawTemplate> = self.find(binding.template.as_str(), None).await?;
        let visible = self.inventory.visible_to(access);
        compare(visible, &template, binding.cluster.as_ref(), &binding.selector)
    }

    /// What an operation stores that applies a template, so that it does not matter what becomes of the template. `options` are the
    /// caller's: `template`, and perhaps `version` and `confirm_no_execute`.
    ///
    /// # Errors
    /// Everything that is wrong with `options`, at once, or what the store says.
    pub async fn applied(&self, options: &Map<String, Value>) -> Result<Map<String, Value>, TemplateError> {
        let invalid = |message: String| TemplateError::Invalid {
            errors: vec![QueryError::new("options", message)],
        };
        let wanted: ApplyOptions = serde_json::from_value(Value::Object(options.clone()))
            .map_err(|error| invalid(format!("{error}: template, version and confirm_no_execute are allowed")))?;
        let found: Result<Versioned<RawTemplate>, TemplateError> = self.find(&wanted.template, wanted.version).await;
        let template = found.map_err(|error| match error {
            TemplateError::Unknown { .. } | TemplateError::UnknownVersion { .. } => invalid(error.to_string()),
            other => other,
        })?;
        let applied = AppliedTemplate {
            template: template.name.to_string(),
            version: template.version,
            content: template.content,
            confirm_no_execute: wanted.confirm_no_execute,
        };
        object(&applied)
    }

    /// All versions, the latest first; never none.
    async fn stored<T: Content>(&self, name: &str) -> Result<Vec<Definition>, TemplateError> {
        let parsed = DefinitionName::parse(name).map_err(|_| unknown::<T>(name))?;
        let versions = self.store.versions(T::KIND, &parsed).await?;
        match versions.is_empty() {
            true => Err(unknown::<T>(name)),
            false => Ok(versions),
        }
    }

    /// Writes the version after the latest one.
    async fn next<T: Content>(
        &self,
        name: &str,
        known: Option<&[String]>,
        content: Option<&T>,
        by: &Actor,
    ) -> Result<Definition, TemplateError> {
        for attempt in 1.. {
            let latest: Versioned<T> = self.find(name, None).await?;
            if known.is_some_and(|known| !known.contains(&latest.version.to_string())) {
                return Err(TemplateError::Stale {
                    kind: T::KIND,
                    name: latest.name,
                    version: latest.version,
                });
            }
            match self
                .write(&latest.name, latest.version.saturating_add(1), content, by)
                .await
            {
                // Somebody wrote this version meanwhile: whether it still may be written is looked at anew.
                Err(TemplateError::Storage(StorageError::Conflict { .. })) if attempt < ATTEMPTS => {}
                written => return written,
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn write<T: Content>(
        &self,
        name: &DefinitionName,
        version: u32,
        content: Option<&T>,
        by: &Actor,
    ) -> Result<Definition, TemplateError> {
        let definition = Definition {
            kind: T::KIND,
            name: name.clone(),
            version,
            content: content.map(object).transpose()?,
            changed_at: self.clock.now(),
            changed_by: by.label().to_owned(),
        };
        self.store.add(&definition).await?;
        tracing::info!(
            kind = T::KIND.as_str(), name = %name, version, by = by.label(),
            "{}", if content.is_some() { "definition written" } else { "definition deleted" }
        );
        Ok(definition)
    }
}

/// Compares nodes with a template.
fn compare(
    visible: Visible<'_>,
    template: &Versioned<RawTemplate>,
    cluster: Option<&ClusterName>,
    selector: &Selector,
) -> Result<Comparison, TemplateError> {
    let wanted = Template::parse(&template.content).map_err(|errors| TemplateError::Invalid { errors })?;
    let mut comparison = Comparison {
        template: template.name.clone(),
        version: template.version,
        compared: 0,
        drifted: Vec::new(),
        unknown: Vec::new(),
        stale: Vec::new(),
    };
    let snapshots = match cluster {
        Some(cluster) => vec![(cluster.clone(), visible.snapshot(cluster.as_str()))],
        None => visible.snapshots(),
    };
    for (name, snapshot) in snapshots {
        let snapshot = match snapshot {
            Ok(snapshot) => snapshot,
            // Of one that is asked for by name, the caller wants to know why.
            Err(error) if cluster.is_some() => return Err(error.into()),
            Err(InventoryError::NotSeenYet { .. }) => {
                comparison.unknown.push(name);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if snapshot.stale() {
            comparison.stale.push(StaleCluster {
                cluster: name.clone(),
                as_of: snapshot.as_of(),
            });
        }
        for entry in snapshot.entries() {
            let node = entry.node();
            if !selector.matches(&node.labels) {
                continue;
            }
            comparison.compared += 1;
            comparison.drifted.extend(wanted.drift(node).map(|drift| DriftedNode {
                cluster: name.clone(),
                node: node.name.clone(),
                drift,
            }));
        }
    }
    Ok(comparison)
}

/// What a caller says of a template that is to be applied.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplyOptions {
    template: String,
    #[serde(default)]
    version: Option<u32>,
    #[serde(default)]
    confirm_no_execute: bool,
}

fn unknown<T: Content>(name: &str) -> TemplateError {
    TemplateError::Unknown {
        kind: T::KIND,
        name: excerpt(name),
    }
}

fn object<T: Serialize>(content: &T) -> Result<Map<String, Value>, TemplateError> {
    match serde_json::to_value(content) {
        Ok(Value::Object(object)) => Ok(object),
        other => Err(StorageError::Internal {
            source: format!("what is written down is no JSON object: {other:?}").into(),
        }
        .into()),
    }
}

fn with<T>(definition: Definition, content: T) -> Versioned<T> {
    Versioned {
        name: definition.name,
        version: definition.version,
        changed_at: definition.changed_at,
        changed_by: definition.changed_by,
        content,
    }
}

fn read<T: Content>(definition: Definition) -> Result<Versioned<Option<T>>, TemplateError> {
    let content = definition.content.clone().map(Value::Object);
    let content = content.map(serde_json::from_value).transpose();
    let content = content.map_err(|error| StorageError::Corrupt {
        what: "definition",
        message: format!(
            "{} \"{}\" version {}: {error}",
            T::KIND,
            definition.name,
            definition.version
        ),
    })?;
    Ok(with(definition, content))
}

/// `None` if it says that it was deleted.
fn versioned<T: Content>(definition: Definition) -> Result<Option<Versioned<T>>, TemplateError> {
    let Versioned {
        name,
        version,
        changed_at,
        changed_by,
        content,
    } = read(definition)?;
    Ok(content.map(|content| Versioned {
        name,
        version,
        changed_at,
        changed_by,
        content,
    }))
}
