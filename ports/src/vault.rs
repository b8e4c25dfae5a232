//! Secrets that lie in the store.

use knm_model::SealedSecret;

/// A secret that was opened.
pub type OpenedSecret = secrecy::SecretSlice<u8>;

/// Seals secrets, so that whoever reads the store learns nothing of them, and opens them again.
///
/// What a secret is for is sealed with it: a secret that was sealed for one purpose cannot be opened for another one.
#[cfg_attr(feature = "mocks", mockall::automock)]
pub trait Vault: Send + Sync + 'static {
    /// Seals a secret with the newest key.
    ///
    /// - MUST make another nonce each time.
    fn seal(&self, purpose: &str, secret: &[u8]) -> Result<SealedSecret, VaultError>;

    /// Opens a secret.
    ///
    /// - MUST open what was sealed with any of the keys.
    /// - MUST refuse what was sealed for another purpose, or changed since.
    fn open(&self, purpose: &str, sealed: &SealedSecret) -> Result<OpenedSecret, VaultError>;

    /// Whether a secret is sealed with the newest key.
    fn is_newest(&self, sealed: &SealedSecret) -> bool;
}

/// Why a secret was not sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// There is no such key.
    #[error("the key \"{key_id}\" is not there")]
    UnknownKey {
        /// Its id.
        key_id: String,
    },
    /// The key of this id is another one, or what is sealed was changed or moved.
    #[error("the key \"{key_id}\" does not open it: the key is another one, or what is sealed was changed")]
    Refused {
        /// The id of the key.
        key_id: String,
    },
    /// The machine gives no random bytes.
    #[error("there are no random bytes")]
    NoRandomness,
}
