//! Rows of `idempotency_keys`.

use knm_model::{KeptAnswer, KnownRequest};
use knm_ports::StorageError;

/// Fingerprint, and of the answer: status, media type, tag, body.
pub type KnownRequestRow = (Vec<u8>, Option<i16>, Option<String>, Option<String>, Option<Vec<u8>>);

/// Reads a row.
///
/// # Errors
/// [`StorageError::Corrupt`] if it holds what this program does not write.
pub fn known_request(row: KnownRequestRow) -> Result<KnownRequest, StorageError> {
    let (fingerprint, status, content_type, etag, body) = row;
    let corrupt = |message: String| StorageError::Corrupt {
        what: "idempotency key",
        message,
    };
    let length = fingerprint.len();
    let fingerprint = <[u8; 32]>::try_from(fingerprint)
        .map_err(|_| corrupt(format!("a fingerprint has 32 bytes, this one has {length}")))?;
    let answer = status.map(|status| {
        Ok(KeptAnswer {
            status: u16::try_from(status).map_err(|_| corrupt(format!("{status} is not an HTTP status")))?,
            content_type,
            etag,
            body: body.unwrap_or_default(),
        })
    });
    Ok(KnownRequest {
        fingerprint,
        answer: answer.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_nobody_here_wrote_is_corrupt_and_says_what() {
        for (row, expected) in [
            ((vec![0; 31], None, None, None, None), "31"),
            ((vec![0; 32], Some(-1), None, None, None), "-1"),
        ] {
            let error = known_request(row).unwrap_err();
            assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
