//! Seals secrets with keys from a file: AES-256-GCM of *ring*, with a random nonce for each secret.

mod key_file;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use knm_model::SealedSecret;
use knm_ports::{OpenedSecret, Vault, VaultError};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};

pub use key_file::{KeyFileError, LONGEST_ID};

/// How long a key is, in bytes.
const KEY_LEN: usize = 32;

/// Keys that seal and open secrets: the first one seals, all of them open.
pub struct KeyRing {
    keys: Vec<(String, LessSafeKey)>,
    random: SystemRandom,
}

impl KeyRing {
    /// Reads a file with a key on each line, `<id>:<base64 of 32 bytes>`; lines that begin with `#` are for people.
    ///
    /// # Errors
    /// [`KeyFileError`], which tells the line and never what stands on it.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let read = std::fs::read_to_string(path);
        let text = SecretString::from(read.map_err(|source| KeyFileError::Unreadable {
            path: path.to_owned(),
            source,
        })?);
        let keys = key_file::parse(text.expose_secret(), path)?;
        Ok(Self {
            keys,
            random: SystemRandom::new(),
        })
    }

    fn key(&self, id: &str) -> Option<&LessSafeKey> {
        self.keys.iter().find(|(known, _)| known == id).map(|(_, key)| key)
    }
}

impl Vault for KeyRing {
    fn seal(&self, purpose: &str, secret: &[u8]) -> Result<SealedSecret, VaultError> {
        // A ring has a key at least: a file without any is refused.
        let Some((id, key)) = self.keys.first() else {
            return Err(VaultError::UnknownKey { key_id: String::new() });
        };
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| VaultError::NoRandomness)?;
        let mut sealed = secret.to_vec();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(purpose.as_bytes()),
            &mut sealed,
        )
        .map_err(|_| VaultError::Refused { key_id: id.clone() })?;
        Ok(SealedSecret {
            key_id: id.clone(),
            nonce: nonce.to_vec(),
            ciphertext: sealed,
        })
    }

    fn open(&self, purpose: &str, sealed: &SealedSecret) -> Result<OpenedSecret, VaultError> {
        let key_id = || sealed.key_id.clone();
        let key = self
            .key(&sealed.key_id)
            .ok_or_else(|| VaultError::UnknownKey { key_id: key_id() })?;
        let refused = || VaultError::Refused { key_id: key_id() };
        let nonce = Nonce::try_assume_unique_for_key(&sealed.nonce).map_err(|_| refused())?;
        let mut opened = sealed.ciphertext.clone();
        let length = key
            .open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut opened)
            .map_err(|_| refused())?
            .len();
        opened.truncate(length);
        Ok(OpenedSecret::from(opened))
    }

    fn is_newest(&self, sealed: &SealedSecret) -> bool {
        self.keys.first().is_some_and(|(id, _)| *id == sealed.key_id)
    }
}

/// A line for a file of keys, with a new key under this id.
///
/// # Errors
/// [`KeyFileError::WrongId`], or [`KeyFileError::NoRandomness`].
pub fn generate(id: &str) -> Result<SecretString, KeyFileError> {
    if !key_file::is_id(id) {
        return Err(KeyFileError::WrongId);
    }
    let mut bytes = [0; KEY_LEN];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| KeyFileError::NoRandomness)?;
    Ok(format!("{id}:{}", STANDARD.encode(bytes)).into())
}

/// A key of these bytes.
fn key_of(bytes: &[u8]) -> Option<LessSafeKey> {
    (bytes.len() == KEY_LEN)
        .then(|| UnboundKey::new(&AES_256_GCM, bytes).ok())
        .flatten()
        .map(LessSafeKey::new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PURPOSE: &str = "a test";

    fn line(id: &str) -> String {
        generate(id).unwrap().expose_secret().to_owned()
    }

    fn ring(lines: &[&str]) -> KeyRing {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, lines.join("\n")).unwrap();
        KeyRing::load(&path).unwrap()
    }

    fn opened(ring: &KeyRing, sealed: &SealedSecret) -> Vec<u8> {
        ring.open(PURPOSE, sealed).unwrap().expose_secret().to_vec()
    }

    #[test]
    fn the_first_key_seals_and_all_of_them_open() {
        let (old, new) = (line("old"), line("new"));
        let before = ring(&[&old]);
        let sealed = before.seal(PURPOSE, b"hunter2").unwrap();
        assert!(before.is_newest(&sealed));

        let after = ring(&["# the keys", "", &new, &old]);
        assert_eq!(opened(&after, &sealed), b"hunter2");
        assert!(!after.is_newest(&sealed));
        let again = after.seal(PURPOSE, b"hunter2").unwrap();
        assert_eq!(again.key_id, "new");
        let unknown = VaultError::UnknownKey {
            key_id: "new".to_owned(),
        };
        assert_eq!(before.open(PURPOSE, &again).err(), Some(unknown));
    }

    #[test]
    fn another_key_under_the_same_id_opens_nothing() {
        let sealed = ring(&[&line("a")]).seal(PURPOSE, b"hunter2").unwrap();
        let refused = VaultError::Refused { key_id: "a".to_owned() };
        assert_eq!(ring(&[&line("a")]).open(PURPOSE, &sealed).err(), Some(refused));
    }

    #[test]
    fn what_was_sealed_for_another_purpose_or_changed_is_not_opened() {
        let ring = ring(&[&line("a")]);
        let sealed = ring.seal(PURPOSE, b"hunter2").unwrap();
        assert!(ring.open("another purpose", &sealed).is_err());
        for place in 0..sealed.ciphertext.len() {
            let mut changed = sealed.clone();
            changed.ciphertext[place] ^= 1;
            assert!(ring.open(PURPOSE, &changed).is_err(), "{place}");
        }
        for nonce in [vec![], vec![0; NONCE_LEN], vec![0; 24]] {
            let changed = SealedSecret {
                nonce,
                ..sealed.clone()
            };
            assert!(ring.open(PURPOSE, &changed).is_err());
        }
        let cut = SealedSecret {
            ciphertext: Vec::new(),
            ..sealed
        };
        assert!(ring.open(PURPOSE, &cut).is_err());
    }

    #[test]
    fn each_secret_has_a_nonce_of_its_own_and_is_not_to_be_seen() {
        let ring = ring(&[&line("a")]);
        let (one, other) = (
            ring.seal(PURPOSE, b"hunter2").unwrap(),
            ring.seal(PURPOSE, b"hunter2").unwrap(),
        );
        assert_ne!(one.nonce, other.nonce);
        assert_ne!(one.ciphertext, other.ciphertext);
        assert!(!one.ciphertext.windows(7).any(|part| part == b"hunter2"));
    }

    #[test]
    fn a_line_that_is_made_is_one_that_is_read() {
        assert!(line("key-2030").starts_with("key-2030:"));
        for wrong in ["", "A", "a b", "a:b", &"a".repeat(LONGEST_ID + 1)] {
            assert!(matches!(generate(wrong), Err(KeyFileError::WrongId)), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_opened_again(secret in proptest::collection::vec(any::<u8>(), 0..200)) {
            let ring = ring(&[&line("a")]);
            let sealed = ring.seal(PURPOSE, &secret).unwrap();
            prop_assert_eq!(opened(&ring, &sealed), secret);
        }
    }
}
