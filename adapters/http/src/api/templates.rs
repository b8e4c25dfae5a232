//! Templates and bindings.

use std::sync::Arc;

use knm_domain::{TemplateError, Versioned};
use knm_model::{Caller, DefinitionKind, Object, Permission, QueryError, RawBinding, RawTemplate, Selector, excerpt};
use poem::Request;
use poem::http::StatusCode;
use poem::web::Data;
use poem_openapi::OpenApi;
use poem_openapi::param::{Path, Query};

use super::Group;
use super::changes::{asker, known};
use crate::Shared;
use crate::answer::{Created, Deleted, Ready, Tagged};
use crate::body::Written;
use crate::gate;
use crate::problem::{Failure, OfAudit, OfComparing, OfDefining, OfRedefining, OfRemoving, OfStored, Problem};
use crate::view::{
    BindingBody, BindingListView, BindingView, ComparisonView, NewBindingBody, NewTemplateBody, PreviewBody,
    TemplateBody, TemplateListView, TemplateView, VersionListView,
};

pub(crate) struct TemplatesApi;

#[OpenApi]
impl TemplatesApi {
    /// List templates
    ///
    /// Sorted by name, each in its latest version.
    #[oai(
        path = "/api/v1/templates",
        method = "get",
        tag = "Group::Templates",
        operation_id = "listTemplates"
    )]
    async fn list(&self, shared: Data<&Arc<Shared>>) -> Result<Ready<TemplateListView>, Failure<OfAudit>> {
        Ok(Ready::of(&TemplateListView::of(&shared.templates.list().await?)))
    }

    /// Create a template
    ///
    /// Nothing changes on nodes: an operation of the kind `apply_template` gives them what it says, or a binding that reconciles.
    #[oai(
        path = "/api/v1/templates",
        method = "post",
        tag = "Group::Templates",
        operation_id = "createTemplate"
    )]
    async fn create(
        &self,
        shared: Data<&Arc<Shared>>,
        request: &Request,
        body: Written<NewTemplateBody>,
    ) -> Result<Created<TemplateView>, Failure<OfDefining>> {
        let (name, content) = body.0.split();
        let by = asker(request).caller.actor;
        let stored = shared.templates.create(&name, content, &by).await?;
        Ok(Created::new(stored.version, &TemplateView::of(&stored)))
    }

    /// Show a template
    ///
    /// In its latest version, or in an earlier one, also in one of a time before it was deleted.
    #[oai(
        path = "/api/v1/templates/:template",
        method = "get",
        tag = "Group::Templates",
        operation_id = "getTemplate"
    )]
    async fn one(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The template's name.
        template: Path<String>,
        /// One of its versions; absent: the latest.
        version: Query<Option<String>>,
    ) -> Result<Tagged<TemplateView>, Failure<OfStored>> {
        let version = version.0.as_deref().map(parse_version).transpose()?;
        let stored = shared.templates.find(&template.0, version).await?;
        Ok(Tagged::new(stored.version, &TemplateView::of(&stored)))
    }

    /// Change a template
    ///
    /// Writes its next version. Nodes keep what earlier versions gave them; bindings compare them with this one from now on.
    #[oai(
        path = "/api/v1/templates/:template",
        method = "put",
        tag = "Group::Templates",
        operation_id = "updateTemplate"
    )]
    async fn update(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The template's name.
        template: Path<String>,
        request: &Request,
        body: Written<TemplateBody>,
    ) -> Result<Tagged<TemplateView>, Failure<OfRedefining>> {
        let (known, by) = (known(request.headers()), asker(request).caller.actor);
        let stored = shared
            .templates
            .update(&template.0, known.as_deref(), body.0.raw(), &by)
            .await?;
        Ok(Tagged::new(stored.version, &TemplateView::of(&stored)))
    }

    /// Delete a template
    ///
    /// Its versions stay readable, and nodes keep what they have. One that bindings use cannot be deleted.
    #[oai(
        path = "/api/v1/templates/:template",
        method = "delete",
        tag = "Group::Templates",
        operation_id = "deleteTemplate"
    )]
    async fn delete(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The template's name.
        template: Path<String>,
        request: &Request,
    ) -> Result<Deleted, Failure<OfRemoving>> {
        let (known, by) = (known(request.headers()), asker(request).caller.actor);
        shared
            .templates
            .delete::<RawTemplate>(&template.0, known.as_deref(), &by)
            .await?;
        Ok(Deleted)
    }

    /// List the versions of a template
    ///
    /// Who wrote what and when, the latest first; also of one that was deleted.
    #[oai(
        path = "/api/v1/templates/:template/versions",
        method = "get",
        tag = "Group::Templates",
        operation_id = "listTemplateVersions"
    )]
    async fn versions(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The template's name.
        template: Path<String>,
    ) -> Result<Ready<VersionListView>, Failure<OfStored>> {
        let versions = shared.templates.versions::<RawTemplate>(&template.0).await?;
        Ok(Ready::of(&VersionListView::of(&versions)))
    }

    /// Preview a template
    ///
    /// Which nodes would change, and how. Nothing is changed.
    #[oai(
        path = "/api/v1/templates/:template/preview",
        method = "post",
        tag = "Group::Templates",
        operation_id = "previewTemplate"
    )]
    async fn preview(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The template's name.
        template: Path<String>,
        body: Written<PreviewBody>,
    ) -> Result<Ready<ComparisonView>, Failure<OfComparing>> {
        let PreviewBody {
            cluster,
            label_selector,
            version,
        } = body.0;
        let selector = Selector::parse(&label_selector).map_err(|error| {
            Problem::invalid(vec![QueryError {
                parameter: "label_selector".into(),
                position: Some(error.position),
                message: error.message,
            }])
        })?;
        let comparison = shared
            .templates
            .preview(&template.0, version, cluster.as_deref(), &selector, &caller.access)
            .await?;
        Ok(Ready::of(&ComparisonView::of(&comparison)))
    }

    /// List bindings
    ///
    /// Sorted by name, each in its latest version.
    #[oai(
        path = "/api/v1/bindings",
        method = "get",
        tag = "Group::Templates",
        operation_id = "listBindings"
    )]
    async fn bindings(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
    ) -> Result<Ready<BindingListView>, Failure<OfAudit>> {
        let mut bindings = shared.templates.list().await?;
        bindings.retain(|binding| sees_binding(&caller, &binding.content));
        Ok(Ready::of(&BindingListView::of(&bindings)))
    }

    /// Create a binding
    ///
    /// From now on the nodes that it selects are compared with its template. With `reconcile` the service begins operations that give them
    /// what they lack.
    #[oai(
        path = "/api/v1/bindings",
        method = "post",
        tag = "Group::Templates",
        operation_id = "createBinding"
    )]
    async fn bind(
        &self,
        shared: Data<&Arc<Shared>>,
        request: &Request,
        body: Written<NewBindingBody>,
    ) -> Result<Created<BindingView>, Failure<OfDefining>> {
        let (name, content) = body.0.split();
        shared.check_binding(&content).await?;
        permit_binding(&gate::caller(request), &content)?;
        let by = asker(request).caller.actor;
        let stored = shared.templates.create(&name, content, &by).await?;
        Ok(Created::new(stored.version, &BindingView::of(&stored)))
    }

    /// Show a binding
    ///
    /// In its latest version.
    #[oai(
        path = "/api/v1/bindings/:binding",
        method = "get",
        tag = "Group::Templates",
        operation_id = "getBinding"
    )]
    async fn binding(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The binding's name.
        binding: Path<String>,
    ) -> Result<Tagged<BindingView>, Failure<OfStored>> {
        let stored = shared.visible_binding(&binding.0, &caller).await?;
        Ok(Tagged::new(stored.version, &BindingView::of(&stored)))
    }

    /// Change a binding
    ///
    /// Writes its next version.
    #[oai(
        path = "/api/v1/bindings/:binding",
        method = "put",
        tag = "Group::Templates",
        operation_id = "updateBinding"
    )]
    async fn rebind(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The binding's name.
        binding: Path<String>,
        request: &Request,
        body: Written<BindingBody>,
    ) -> Result<Tagged<BindingView>, Failure<OfRedefining>> {
        let (known, by) = (known(request.headers()), asker(request).caller.actor);
        let content = body.0.raw();
        shared.check_binding(&content).await?;
        permit_binding(&gate::caller(request), &content)?;
        let stored = shared
            .templates
            .update(&binding.0, known.as_deref(), content, &by)
            .await?;
        Ok(Tagged::new(stored.version, &BindingView::of(&stored)))
    }

    /// Delete a binding
    ///
    /// Nodes keep what they have, and repairs that are under way go on. Its versions stay readable.
    #[oai(
        path = "/api/v1/bindings/:binding",
        method = "delete",
        tag = "Group::Templates",
        operation_id = "deleteBinding"
    )]
    async fn unbind(
        &self,
        shared: Data<&Arc<Shared>>,
        /// The binding's name.
        binding: Path<String>,
        request: &Request,
    ) -> Result<Deleted, Failure<OfRemoving>> {
        let (known, by) = (known(request.headers()), asker(request).caller.actor);
        shared
            .templates
            .delete::<RawBinding>(&binding.0, known.as_deref(), &by)
            .await?;
        Ok(Deleted)
    }

    /// List the versions of a binding
    ///
    /// Who wrote what and when, the latest first; also of one that was deleted.
    #[oai(
        path = "/api/v1/bindings/:binding/versions",
        method = "get",
        tag = "Group::Templates",
        operation_id = "listBindingVersions"
    )]
    async fn binding_versions(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The binding's name.
        binding: Path<String>,
    ) -> Result<Ready<VersionListView>, Failure<OfStored>> {
        let versions = shared.templates.versions::<RawBinding>(&binding.0).await?;
        let sees = |version: &Versioned<Option<RawBinding>>| {
            version
                .content
                .as_ref()
                .is_none_or(|content| sees_binding(&caller, content))
        };
        if !versions.iter().all(sees) {
            return Err(unknown_binding(&binding.0).into());
        }
        Ok(Ready::of(&VersionListView::of(&versions)))
    }

    /// Show the drift of a binding
    ///
    /// Which of its nodes lack what, as they are known now. Nothing is changed.
    #[oai(
        path = "/api/v1/bindings/:binding/drift",
        method = "get",
        tag = "Group::Templates",
        operation_id = "getBindingDrift"
    )]
    async fn drift(
        &self,
        shared: Data<&Arc<Shared>>,
        caller: Data<&Arc<Caller>>,
        /// The binding's name.
        binding: Path<String>,
    ) -> Result<Ready<ComparisonView>, Failure<OfStored>> {
        let stored = shared.visible_binding(&binding.0, &caller).await?;
        let comparison = shared.templates.drift(&stored.content, &caller.access).await?;
        Ok(Ready::of(&ComparisonView::of(&comparison)))
    }
}

/// Whether somebody may see a binding: one of a cluster that they see, or of all clusters.
fn sees_binding(caller: &Caller, binding: &RawBinding) -> bool {
    let cluster = binding.cluster.as_deref();
    cluster.is_none_or(|cluster| caller.access.allows(Permission::View, Object::SomeOf(cluster)))
}

/// A binding that evicts pods does so without asking again.
fn permit_binding(caller: &Caller, binding: &RawBinding) -> Result<(), Problem> {
    if !binding.confirm_no_execute {
        return Ok(());
    }
    let ruling = caller.access.decide(&[Permission::NoExecute], Object::Everything);
    gate::permit(caller, ruling, None)
}

fn unknown_binding(name: &str) -> TemplateError {
    TemplateError::Unknown {
        kind: DefinitionKind::Binding,
        name: excerpt(name),
    }
}

impl Shared {
    async fn visible_binding(&self, name: &str, caller: &Caller) -> Result<Versioned<RawBinding>, TemplateError> {
        let stored = self.templates.find::<RawBinding>(name, None).await?;
        match sees_binding(caller, &stored.content) {
            true => Ok(stored),
            false => Err(unknown_binding(name)),
        }
    }

    /// Refuses a binding to what there is not, while whoever writes it can mend that.
    async fn check_binding(&self, binding: &RawBinding) -> Result<(), Problem> {
        let mut errors = Vec::new();
        let template = self.templates.find::<RawTemplate>(&binding.template, None).await;
        match template.map_err(Problem::from) {
            Err(problem) if problem.kind().status() == StatusCode::NOT_FOUND => {
                errors.push(QueryError::new("template", problem.detail().to_owned()));
            }
            Err(problem) => return Err(problem),
            Ok(_) => {}
        }
        if let Some(cluster) = &binding.cluster
            && self.inventory.handle(cluster).is_err()
        {
            let cluster = excerpt(cluster);
            let message = format!("cluster \"{cluster}\" is not known: GET /api/v1/clusters lists those that are");
            errors.push(QueryError::new("cluster", message));
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(Problem::invalid(errors)),
        }
    }
}

fn parse_version(text: &str) -> Result<u32, Problem> {
    text.parse().ok().filter(|version| 0 < *version).ok_or_else(|| {
        let message = format!(
            "\"{}\" is not a version: a whole number from 1 is expected",
            excerpt(text)
        );
        Problem::invalid(vec![QueryError::new("version", message)])
    })
}
