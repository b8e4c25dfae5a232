//! API tokens: made here, shown once, kept as a hash.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use knm_model::{Access, Actor, ActorKind, ApiToken, Authority, Caller, NewToken, TokenError, TokenId, TokenText};
use knm_ports::{ApiTokens, Clock, Randomness, StorageError};
use moka::future::Cache;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Found, Standing, UnknowableError};

/// How long what the store said of a token is believed: so long one that another replica revoked goes on working.
const BELIEVED: Duration = Duration::from_secs(2);
/// Of how many tokens it is remembered, those that there are not included.
const MOST_REMEMBERED: u64 = 10_000;
/// How exactly it is known when a token was last used.
const USE_TO_THE: Duration = Duration::from_secs(60);
/// How many tokens there may be that are worth something.
const MOST_TOKENS: usize = 1_000;

/// Who makes the first token.
const BY_CONFIGURATION: &str = "auth.bootstrap_token_file";

/// The API tokens of this service.
pub struct Tokens {
    store: Arc<dyn ApiTokens>,
    clock: Arc<dyn Clock>,
    randomness: Arc<dyn Randomness>,
    known: Cache<TokenId, Option<Arc<Known>>>,
    /// How often something that is known here may have become wrong: what was read before that must not be kept.
    changes: AtomicU64,
}

/// A token that was just made. Nobody gets to see its text again.
pub struct MadeToken {
    /// What is kept of it.
    pub token: ApiToken,
    /// What its holder gets.
    pub text: TokenText,
}

/// Why a token was not made or not revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenAdminError {
    /// There is no such token.
    #[error("there is no token \"{id}\"")]
    Unknown {
        /// The id.
        id: TokenId,
    },
    /// It is no id at all. Nothing of it is repeated: whoever has the whole token at hand may have given that.
    #[error("that is no id of a token: 16 hexadecimal digits are expected, what stands there instead is not repeated")]
    NoId,
    /// There is one of this name that is worth something.
    #[error("there is a token \"{name}\" already: revoke it first, or take another name")]
    Taken {
        /// The name.
        name: String,
    },
    /// Nobody hands on what they do not have.
    #[error("the token would allow more than whoever makes it may do")]
    TooMuch,
    /// There are as many as there may be.
    #[error("there are {MOST_TOKENS} tokens that are valid, which is as many as there may be")]
    TooMany,
    /// The file of the first token has something else in it.
    #[error("{0}")]
    Text(#[from] TokenError),
    /// The store failed.
    #[error("the API tokens could not be read or written")]
    Storage(#[from] StorageError),
}

/// What is remembered of a token.
struct Known {
    token: ApiToken,
    access: Arc<Access>,
    /// Whether this use was noted.
    is_noted: AtomicBool,
}

impl Tokens {
    /// The tokens that `store` keeps.
    pub fn new(store: Arc<dyn ApiTokens>, clock: Arc<dyn Clock>, randomness: Arc<dyn Randomness>) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            randomness,
            changes: AtomicU64::new(0),
            known: Cache::builder()
                .max_capacity(MOST_REMEMBERED)
                .time_to_live(BELIEVED)
                .build(),
        })
    }

    /// All of them, the latest first.
    ///
    /// # Errors
    /// What the store says.
    pub async fn list(&self) -> Result<Vec<ApiToken>, StorageError> {
        self.store.list().await
    }

    /// Makes a token for `by`, who may hand on what they may do themselves. One of its name that has run out gives the name up.
    ///
    /// # Errors
    /// [`TokenAdminError`]; then there is no token.
    pub async fn make(&self, new: NewToken, by: &Caller) -> Result<MadeToken, TokenAdminError> {
        if !by.access.includes(&new.grant.grant()) {
            return Err(TokenAdminError::TooMuch);
        }
        let (all, now) = (self.store.list().await?, self.clock.now());
        if MOST_TOKENS <= all.iter().filter(|token| token.is_valid(now)).count() {
            return Err(TokenAdminError::TooMany);
        }
        for ended in all
            .iter()
            .filter(|token| has_name(token, &new.name) && !token.is_valid(now))
        {
            self.withdraw(ended.id, by.actor.label()).await?;
        }
        let text = random_token(&*self.randomness);
        let token = self.kept(&text, new, by.actor.label());
        self.add(&token).await?;
        tracing::info!(token = %token.id, name = token.name, role = token.grant.role.as_str(), by = token.created_by, "API token made");
        Ok(MadeToken { token, text })
    }

    /// Takes over the token that the configuration brings along, if it is not known yet: the first one, which may do everything. It takes the
    /// place of another one under its name, which is revoked: the configuration says what is right. Once it was revoked or has run out it
    /// stays so.
    ///
    /// # Errors
    /// [`TokenAdminError`].
    pub async fn bootstrap(&self, text: &str, new: NewToken) -> Result<(), TokenAdminError> {
        let text = TokenText::parse(text.trim())?;
        if let Some(known) = self.store.find(text.id()).await? {
            if !known.is_valid(self.clock.now()) {
                tracing::warn!(
                    token = %known.id,
                    "the token of auth.bootstrap_token_file was revoked or has run out: `kube-node-manager token generate` prints another one"
                );
            }
            return Ok(());
        }
        let all = self.store.list().await?;
        for earlier in all.iter().filter(|token| has_name(token, &new.name)) {
            self.withdraw(earlier.id, BY_CONFIGURATION).await?;
            tracing::warn!(
                token = %earlier.id, name = earlier.name,
                "API token revoked: auth.bootstrap_token_file has another one under its name"
            );
        }
        let token = self.kept(&text, new, BY_CONFIGURATION);
        match self.add(&token).await {
            // Another replica was first.
            Err(TokenAdminError::Taken { .. }) if self.store.find(text.id()).await?.is_some() => Ok(()),
            Ok(()) => {
                tracing::info!(token = %token.id, "the token of auth.bootstrap_token_file was taken over");
                Ok(())
            }
            refused => refused,
        }
    }

    /// Revokes a token for good: here at once, in other replicas within two seconds.
    ///
    /// # Errors
    /// [`TokenAdminError::Unknown`] or [`TokenAdminError::NoId`], or what the store says.
    pub async fn revoke(&self, id: &str, by: &str) -> Result<ApiToken, TokenAdminError> {
        let id = TokenId::parse(id).ok_or(TokenAdminError::NoId)?;
        let unknown = || TokenAdminError::Unknown { id };
        match self.withdraw(id, by).await {
            Err(StorageError::NotFound { .. }) => return Err(unknown()),
            outcome => outcome?,
        }
        tracing::info!(token = %id, by, "API token revoked");
        self.store.find(id).await?.ok_or_else(unknown)
    }

    /// Whether there is any token that is worth something now.
    ///
    /// # Errors
    /// What the store says.
    pub async fn has_any(&self) -> Result<bool, StorageError> {
        let now = self.clock.now();
        Ok(self.store.list().await?.iter().any(|token| token.is_valid(now)))
    }

    /// What the token with this id allows now.
    pub(super) async fn standing(&self, id: TokenId) -> Result<Standing, UnknowableError> {
        let withdrawn = |why: String| Ok(Standing::Withdrawn(why));
        match self.find(id).await? {
            None => withdrawn(format!("token {id} is not there any more")),
            Some(known) if known.token.revoked.is_some() => {
                withdrawn(format!("token \"{}\" was revoked", known.token.name))
            }
            Some(known) if !known.token.is_valid(self.clock.now()) => {
                withdrawn(format!("token \"{}\" has run out", known.token.name))
            }
            Some(known) => Ok(Standing::Access(Arc::clone(&known.access))),
        }
    }

    /// Who holds a token.
    pub(super) async fn look(&self, text: &str, address: Option<String>) -> Result<Found, UnknowableError> {
        let nobody = |why: String| Ok(Found::Nobody(why));
        let text = match TokenText::parse(text) {
            Ok(text) => text,
            Err(error) => return nobody(error.to_string()),
        };
        let id = text.id();
        let hash = hash_of(&text);
        let known = self.find(id).await?;
        // Also compared when there is no such token.
        let expected = known.as_ref().map_or([0; 32], |known| known.token.hash);
        let is_right = bool::from(hash.ct_eq(&expected));
        let Some(known) = known.filter(|_| is_right) else {
            return nobody(format!("there is no token {id} with this secret"));
        };
        let now = self.clock.now();
        if !known.token.is_valid(now) {
            let why = match known.token.revoked {
                Some(_) => "was revoked",
                None => "has run out",
            };
            return nobody(format!("token {id} \"{}\" {why}", known.token.name));
        }
        self.note_use(&known, now);
        Ok(Found::Caller(Caller {
            actor: Actor::signed_in(ActorKind::Token, known.token.name.clone(), address),
            authority: Authority::Token(id),
            access: Arc::clone(&known.access),
        }))
    }

    async fn find(&self, id: TokenId) -> Result<Option<Arc<Known>>, StorageError> {
        if let Some(known) = self.known.get(&id).await {
            return Ok(known);
        }
        let changes = self.changes.load(Ordering::SeqCst);
        let known = self.store.find(id).await?.map(|token| {
            Arc::new(Known {
                access: Arc::new(Access::new(vec![token.grant.grant()])),
                token,
                is_noted: AtomicBool::new(false),
            })
        });
        self.known.insert(id, known.clone()).await;
        if self.changes.load(Ordering::SeqCst) != changes {
            self.known.invalidate(&id).await;
        }
        Ok(known)
    }

    async fn withdraw(&self, id: TokenId, by: &str) -> Result<(), StorageError> {
        self.store.revoke(id, self.clock.now(), by).await?;
        self.forget(id).await;
        Ok(())
    }

    /// Forgets what is known of a token, also what is being read of it at the moment.
    async fn forget(&self, id: TokenId) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.known.invalidate(&id).await;
    }

    /// Notes now and then that a token is used. Nobody waits for it, and a note that does not get through is made the next time.
    fn note_use(&self, known: &Known, now: knm_model::Timestamp) {
        let is_recent = |last: knm_model::Timestamp| now.since(last) < USE_TO_THE;
        if known.token.last_used_at.is_some_and(is_recent) || known.is_noted.swap(true, Ordering::Relaxed) {
            return;
        }
        let (store, id) = (Arc::clone(&self.store), known.token.id);
        tokio::spawn(async move {
            if let Err(error) = store.used(id, now).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "that a token was used could not be noted"
                );
            }
        });
    }

    fn kept(&self, text: &TokenText, new: NewToken, by: &str) -> ApiToken {
        ApiToken {
            id: text.id(),
            name: new.name,
            hash: hash_of(text),
            grant: new.grant,
            created_at: self.clock.now(),
            created_by: by.to_owned(),
            expires_at: new.expires_at,
            revoked: None,
            last_used_at: None,
        }
    }

    async fn add(&self, token: &ApiToken) -> Result<(), TokenAdminError> {
        match self.store.insert(token).await {
            Err(StorageError::Conflict { .. }) => Err(TokenAdminError::Taken {
                name: token.name.clone(),
            }),
            outcome => {
                outcome?;
                self.forget(token.id).await;
                Ok(())
            }
        }
    }
}

/// Whether a token keeps others from having a name: a revoked one does not.
fn has_name(token: &ApiToken, name: &str) -> bool {
    token.revoked.is_none() && token.name == name
}

/// A token that nobody knows yet.
#[must_use]
pub fn random_token(randomness: &dyn Randomness) -> TokenText {
    let random = randomness.bytes();
    let mut id = [0; 8];
    id.copy_from_slice(&random[..8]);
    TokenText::new(TokenId::new(id), randomness.bytes())
}

/// What is kept of a token: a secret of 256 random bits needs no slow hash.
fn hash_of(text: &TokenText) -> [u8; 32] {
    Sha256::digest(text.secret()).into()
}
