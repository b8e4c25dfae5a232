//! API tokens: `knm_<id>_<secret><checksum>`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{RawRoleGrant, RoleGrant};
use crate::{QueryError, Timestamp, excerpt};

/// What every token begins with.
const PREFIX: &str = "knm_";
/// How many a secret has: 256 bits.
const SECRET_DIGITS: usize = 64;
/// How many a checksum has: CRC-32.
const CHECKSUM_DIGITS: usize = 8;
/// How long a token's name may be, in bytes.
const LONGEST_NAME: usize = 63;
/// Those who are called so in the audit log are no tokens.
const RESERVED: [&str; 4] = ["anonymous", "service", "outside", "command line"];
/// Nor are those whose names begin like this.
const RESERVED_PREFIX: &str = "binding/";
/// For how many days a token is valid if nobody says.
const USUAL_DAYS: u32 = 90;
/// For how many days a token may be valid.
const MOST_DAYS: u32 = 3_650;
const SECONDS_OF_DAY: u64 = 86_400;

/// Names a token: public, and part of the token itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId([u8; 8]);

/// A token as its holder sends it. It is never stored; what is kept is a hash of its secret.
#[derive(Clone)]
pub struct TokenText {
    id: TokenId,
    secret: [u8; 32],
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// Its id.
    pub id: TokenId,
    /// What people call it; no two tokens that are not revoked share a name.
    pub name: String,
    /// A SHA-256 of its secret.
    pub hash: [u8; 32],
    /// What it allows.
    pub grant: RoleGrant,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom, see [`Actor::label`](crate::Actor::label).
    pub created_by: String,
    /// From when on it is worth nothing.
    pub expires_at: Timestamp,
    /// When it was revoked, and by whom.
    pub revoked: Option<(Timestamp, String)>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
}

/// A token that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// What people call it.
    pub name: String,
    /// What it allows.
    pub grant: RoleGrant,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not built like one.
    #[error(
        "it is not built like a token: knm_, 16 hexadecimal digits, _ and 72 hexadecimal digits are expected, all in lower case"
    )]
    Form,
    /// It is built like one, and a digit is wrong.
    #[error("its checksum is wrong: a part of it was changed or is missing")]
    Checksum,
}

/// Whether a text claims to be one of our tokens.
#[must_use]
pub fn looks_like_a_token(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// Checks what people call a token.
///
/// # Errors
/// What is wrong with it.
pub fn check_token_name(name: &str) -> Result<(), QueryError> {
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) || lower.starts_with(RESERVED_PREFIX) {
        let message = format!(
            "\"{}\" is reserved, because the audit log calls somebody else so: another name is expected",
            excerpt(name)
        );
        return Err(QueryError::new("name", message));
    }
    let is_allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | '@');
    if name.is_empty() || LONGEST_NAME < name.len() || !name.chars().all(is_allowed) {
        let message = format!(
            "\"{}\" is no name of a token: 1 to {LONGEST_NAME} letters, digits, '-', '_', '.' and '@' are allowed",
            excerpt(name)
        );
        return Err(QueryError::new("name", message));
    }
    Ok(())
}

impl TokenId {
    /// An id of these bytes, which should be random.
    #[must_use]
    pub fn new(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Reads the 16 hexadecimal digits of an id, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(Self(from_hex(text)?))
    }
}

impl TokenText {
    /// A token of an id and 256 bits, which must be random.
    #[must_use]
    pub fn new(id: TokenId, secret: [u8; 32]) -> Self {
        Self { id, secret }
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`TokenError`], which repeats nothing of the text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let rest = text.strip_prefix(PREFIX).ok_or(TokenError::Form)?;
        let (id, rest) = rest.split_once('_').ok_or(TokenError::Form)?;
        if rest.len() != SECRET_DIGITS + CHECKSUM_DIGITS || !rest.is_ascii() {
            return Err(TokenError::Form);
        }
        let (secret, checksum) = rest.split_at(SECRET_DIGITS);
        let token = Self {
            id: TokenId::parse(id).ok_or(TokenError::Form)?,
            secret: from_hex(secret).ok_or(TokenError::Form)?,
        };
        let sum: [u8; 4] = from_hex(checksum).ok_or(TokenError::Form)?;
        match sum == token.checksum() {
            true => Ok(token),
            false => Err(TokenError::Checksum),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// Its secret.
    #[must_use]
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The token as its holder gets it: the only place that writes it down.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!(
            "{PREFIX}{}_{}{}",
            self.id,
            to_hex(&self.secret),
            to_hex(&self.checksum())
        )
    }

    fn checksum(&self) -> [u8; 4] {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.id.0);
        hasher.update(&self.secret);
        hasher.finalize().to_be_bytes()
    }
}

impl ApiToken {
    /// Whether it is worth something at `now`.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && now < self.expires_at
    }
}

impl NewToken {
    /// Checks what a token is to be like; `days` is for how long it is valid.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(name: &str, grant: &RawRoleGrant, days: Option<u32>, now: Timestamp) -> Result<Self, Vec<QueryError>> {
        let mut errors: Vec<_> = check_token_name(name).err().into_iter().collect();
        let days = days.unwrap_or(USUAL_DAYS);
        if !(1..=MOST_DAYS).contains(&days) {
            let message = format!("{days} is not allowed: 1 to {MOST_DAYS} days are");
            errors.push(QueryError::new("expires_in_days", message));
        }
        match RoleGrant::parse(grant) {
            Ok(grant) if errors.is_empty() => Ok(Self {
                name: name.to_owned(),
                grant,
                expires_at: now.plus(std::time::Duration::from_secs(u64::from(days) * SECONDS_OF_DAY)),
            }),
            Ok(_) => Err(errors),
            Err(wrong) => {
                errors.extend(wrong);
                Err(errors)
            }
        }
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TokenId({self})")
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TokenText({PREFIX}{}_…)", self.id)
    }
}

impl Serialize for TokenId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("no id of a token"))
    }
}

fn to_hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}
