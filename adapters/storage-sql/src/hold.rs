//! Rows of `cordon_holds`.

use knm_model::{ClusterName, Hold, HoldState, NodeName, Timestamp};
use knm_ports::StorageError;
use uuid::Uuid;

/// Id, cluster, node, holder, reason, ticket, since, until, whether it is over a foreign cordon, and the [`hold_state_number`].
pub type HoldRow = (
    Vec<u8>,
    String,
    String,
    String,
    String,
    Option<String>,
    i64,
    Option<i64>,
    bool,
    i16,
);

/// Reads a row.
///
/// # Errors
/// [`StorageError::Corrupt`] if it holds what this program does not write.
pub fn hold(row: HoldRow) -> Result<Hold, StorageError> {
    let (id, cluster, node, holder, reason, ticket, since, until, over_foreign, state) = row;
    let corrupt = |message: String| StorageError::Corrupt {
        what: "cordon hold",
        message: format!("of node \"{node}\" in cluster \"{cluster}\": {message}"),
    };
    let time = |column: &str, milliseconds: i64| {
        Timestamp::from_unix_millis(milliseconds).ok_or_else(|| {
            corrupt(format!(
                "{column} {milliseconds} is not a time between the years -9999 and 9999"
            ))
        })
    };
    Ok(Hold {
        id: Uuid::from_slice(&id).map_err(|error| corrupt(error.to_string()))?,
        cluster: ClusterName::parse(&cluster).map_err(|error| corrupt(error.to_string()))?,
        node: NodeName::parse(&node).map_err(|error| corrupt(error.to_string()))?,
        since: time("since_unix_ms", since)?,
        until: until.map(|until| time("until_unix_ms", until)).transpose()?,
        state: HoldState::ALL
            .into_iter()
            .find(|known| hold_state_number(*known) == state)
            .ok_or_else(|| corrupt(format!("the state {state} is not known; known are 0 to 2")))?,
        holder,
        reason,
        ticket,
        over_foreign,
    })
}

/// The number that stands for a state: later states have larger ones.
#[must_use]
pub fn hold_state_number(state: HoldState) -> i16 {
    match state {
        HoldState::Pending => 0,
        HoldState::Active => 1,
        HoldState::Ended => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &[u8], node: &str, state: i16, until: Option<i64>) -> HoldRow {
        let text = str::to_owned;
        (
            id.to_vec(),
            text("demo"),
            text(node),
            text("ann"),
            text("disk"),
            None,
            0,
            until,
            false,
            state,
        )
    }

    #[test]
    fn a_row_becomes_a_hold() {
        for (number, state) in HoldState::ALL.into_iter().enumerate() {
            let hold = hold(row(&[7; 16], "a", number as i16, Some(1_500))).unwrap();
            assert_eq!(hold.state, state);
            assert_eq!(hold.until, Timestamp::from_unix_millis(1_500));
        }
    }

    #[test]
    fn a_row_that_nobody_here_wrote_is_corrupt_and_says_what() {
        let cases = [
            (row(&[7; 15], "a", 0, None), "15"),
            (row(&[7; 16], "A", 0, None), "'A'"),
            (row(&[7; 16], "a", 3, None), "the state 3 is not known"),
            (row(&[7; 16], "a", 0, Some(i64::MAX)), "until_unix_ms"),
        ];
        for (row, expected) in cases {
            let error = hold(row).unwrap_err();
            assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
