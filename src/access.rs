//! Wires up how callers sign in, and gives out API tokens on the command line.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use knm_domain::{Inventory, KubernetesSignIn, OidcSignIn, SignIn, Tokens, Ways};
use knm_identity_oidc::OidcOptions;
use knm_model::{Actor, ActorKind, ApiToken, Caller, ClusterName, NewToken, QueryError, RawRoleGrant, Timestamp};
use knm_ports::{Clock, Storage};
use knm_system::{SystemClock, SystemRandomness};

use crate::arguments::{NewTokenArguments, TokenCommand};
use crate::configuration::{Environment, OidcSettings, Resolved, Settings, SignInSettings};
use crate::{Failure, serve, storage};

/// How long an OpenID provider may take to answer.
const ASKING_THE_ISSUER: Duration = Duration::from_secs(10);
/// What the first token is called.
const BOOTSTRAP: &str = "bootstrap";

/// The API tokens of a store.
pub fn tokens(storage: &Storage, clock: &Arc<dyn Clock>) -> Arc<Tokens> {
    Tokens::new(
        Arc::clone(&storage.tokens),
        Arc::clone(clock),
        Arc::new(SystemRandomness),
    )
}

/// How callers sign in. `own` is the cluster of the own pod, or the only one.
///
/// # Errors
/// [`Failure::SignIn`] if that is not possible as it is configured.
pub async fn sign_in(
    settings: &SignInSettings,
    tokens: &Arc<Tokens>,
    inventory: &Arc<Inventory>,
    clock: &Arc<dyn Clock>,
    own: Option<&ClusterName>,
) -> Result<Arc<SignIn>, Failure> {
    let refused = |why: String| Failure::SignIn { why };
    if settings.is_open {
        tracing::info!("auth.mode is none: whoever reaches this address, on loopback, may do everything");
        return Ok(SignIn::new(Ways::Open, Arc::clone(inventory), Arc::clone(clock)));
    }
    let kubernetes = match &settings.kubernetes {
        None => None,
        Some(kubernetes) => {
            let home = match &kubernetes.cluster {
                Some(name) => inventory.cluster(name).map(|status| status.name).map_err(|_| {
                    refused(format!("auth.kubernetes_cluster: \"{name}\" is none of the configured clusters"))
                })?,
                None => own.cloned().ok_or_else(|| {
                    refused(
                        "auth.mode kubernetes: there is not one cluster whose tokens are meant: auth.kubernetes_cluster must name it"
                            .to_owned(),
                    )
                })?,
            };
            tracing::info!(cluster = %home, "callers sign in with tokens of a cluster");
            Some(Arc::new(KubernetesSignIn::new(home, kubernetes.audiences.clone())))
        }
    };
    let ways = Ways::Closed {
        tokens: settings.tokens.then(|| Arc::clone(tokens)),
        oidc: match &settings.oidc {
            Some(oidc) => Some(Arc::new(openid(oidc).await?)),
            None => None,
        },
        kubernetes,
    };
    Ok(SignIn::new(ways, Arc::clone(inventory), Arc::clone(clock)))
}

/// How callers sign in with tokens of an OpenID provider, which need not be reachable.
async fn openid(settings: &OidcSettings) -> Result<OidcSignIn, Failure> {
    let algorithms = match settings.algorithms.is_empty() {
        true => knm_identity_oidc::USUAL_ALGORITHMS.map(str::to_owned).to_vec(),
        false => settings.algorithms.clone(),
    };
    let options = OidcOptions {
        issuer: settings.issuer.clone(),
        audiences: settings.audiences.clone(),
        algorithms,
        leeway: knm_identity_oidc::USUAL_LEEWAY,
        ca_file: settings.ca_file.clone(),
        request_timeout: ASKING_THE_ISSUER,
    };
    let opened = knm_identity_oidc::open(options).await;
    let tokens = opened.map_err(|error| Failure::SignIn {
        why: format!("auth.oidc: {}", knm_ports::chain(&error)),
    })?;
    tracing::info!(
        issuer = settings.issuer,
        "callers sign in with tokens of an OpenID provider"
    );
    Ok(OidcSignIn {
        tokens,
        name_claim: settings.name_claim.clone(),
        rules: settings.rules.clone(),
    })
}

/// Takes over the first token, and says how to get one if there is none.
///
/// # Errors
/// [`Failure`] if the file of the first token cannot be used.
pub async fn prepare(settings: &SignInSettings, tokens: &Tokens, now: Timestamp) -> Result<(), Failure> {
    if !settings.tokens {
        return Ok(());
    }
    if let Some(file) = &settings.bootstrap_token_file {
        let text = read_token(file)?;
        let everything = RawRoleGrant {
            role: "admin".to_owned(),
            force: true,
            ..RawRoleGrant::default()
        };
        let new = NewToken::parse(BOOTSTRAP, &everything, None, now).map_err(|errors| wrong(&errors))?;
        tokens.bootstrap(&text, new).await.map_err(|error| Failure::SignIn {
            why: format!(
                "auth.bootstrap_token_file: {}: {}",
                file.display(),
                knm_ports::chain(&error)
            ),
        })?;
    }
    let is_alone = settings.kubernetes.is_none() && settings.oidc.is_none();
    // That it cannot be told now is told by the health check.
    if is_alone && matches!(tokens.has_any().await, Ok(false)) {
        tracing::warn!(
            "there is no API token yet, so /api/v1 is closed: `kube-node-manager token create --name me --role admin` makes one, \
             with the configuration of this service"
        );
    }
    Ok(())
}

/// Does what a command about tokens says, on the database of the configuration.
///
/// # Errors
/// [`Failure`].
pub fn command(command: TokenCommand, environment: &Environment) -> Result<(), Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    match command {
        TokenCommand::Generate => {
            let text = knm_domain::random_token(&SystemRandomness);
            crate::print(&format!("{}\n", text.reveal()))
        }
        TokenCommand::Create(arguments) => {
            let new = new_token(&arguments, clock.now())?;
            on_database(arguments.file.config.as_deref(), environment, &clock, async |tokens| {
                let made = tokens.make(new, &command_line()).await.map_err(refused)?;
                Ok(format!("{}\n", made.text.reveal()))
            })
        }
        TokenCommand::List(file) => on_database(file.config.as_deref(), environment, &clock, async |tokens| {
            let found = tokens.list().await.map_err(|error| refused(error.into()))?;
            Ok(table(&found, clock.now()))
        }),
        TokenCommand::Revoke { id, file } => on_database(file.config.as_deref(), environment, &clock, async |tokens| {
            let revoked = tokens.revoke(&id, "command line").await.map_err(refused)?;
            Ok(format!("token {} \"{}\" is revoked\n", revoked.id, revoked.name))
        }),
    }
}

/// Opens the database, brings it up to date, works with its tokens and prints what comes of it.
fn on_database(
    file: Option<&Path>,
    environment: &Environment,
    clock: &Arc<dyn Clock>,
    work: impl AsyncFnOnce(&Tokens) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let resolved = Resolved::load(file, environment)?;
    crate::warn(&resolved);
    let settings = Settings::from(&resolved);
    let text = serve::runtime()?.block_on(async {
        let storage = storage::open(&settings.database).await?;
        let worked = async {
            if settings.database.auto_migrate {
                storage.admin.migrate().await.map_err(Failure::Migration)?;
            }
            work(&tokens(&storage, clock)).await
        };
        let worked = worked.await;
        storage.admin.close().await;
        worked
    })?;
    crate::print(&text)
}

fn new_token(arguments: &NewTokenArguments, now: Timestamp) -> Result<NewToken, Failure> {
    let grant = RawRoleGrant {
        role: arguments.role.clone(),
        force: arguments.force,
        clusters: (!arguments.clusters.is_empty()).then(|| arguments.clusters.clone()),
        nodes: arguments.nodes.clone(),
    };
    NewToken::parse(&arguments.name, &grant, arguments.days, now).map_err(|errors| wrong(&errors))
}

/// Whoever may run the program on its database may do everything.
fn command_line() -> Caller {
    Caller::service(Actor::signed_in(ActorKind::Service, "command line".to_owned(), None))
}

fn table(tokens: &[ApiToken], now: Timestamp) -> String {
    let mut rows = vec![
        [
            "ID",
            "NAME",
            "ROLE",
            "CLUSTERS",
            "NODES",
            "STATE",
            "EXPIRES",
            "LAST USED",
        ]
        .map(str::to_owned),
    ];
    for token in tokens {
        let grant = &token.grant;
        let state = match &token.revoked {
            Some(_) => "revoked",
            None if token.is_valid(now) => "valid",
            None => "expired",
        };
        let clusters = grant.clusters.as_ref().map(|names| {
            let names: Vec<&str> = names.iter().map(ClusterName::as_str).collect();
            names.join(",")
        });
        rows.push([
            token.id.to_string(),
            token.name.clone(),
            format!("{}{}", grant.role.as_str(), if grant.force { "+force" } else { "" }),
            clusters.unwrap_or_else(|| "all".to_owned()),
            grant.nodes.clone().unwrap_or_else(|| "all".to_owned()),
            state.to_owned(),
            token.expires_at.to_string(),
            token
                .last_used_at
                .map_or_else(|| "never".to_owned(), |at| at.to_string()),
        ]);
    }
    let widths: [usize; 8] = std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    });
    lines.collect()
}

fn read_token(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|source| Failure::SignIn {
        why: format!("auth.bootstrap_token_file: {} cannot be read: {source}", file.display()),
    })
}

fn wrong(errors: &[QueryError]) -> Failure {
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Failure::SignIn { why: told.join("; ") }
}

fn refused(error: knm_domain::TokenAdminError) -> Failure {
    Failure::SignIn {
        why: knm_ports::chain(&error),
    }
}
