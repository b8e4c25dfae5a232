//! How many connections of callers the operating system lets this process have.

use std::error::Error;

/// Files and connections that are kept for everything else: the database, clusters, logs.
const RESERVED: u64 = 256;

/// How many connections of callers there may be at once, if `wanted` are. Says so if that is fewer: the others would fail, and with them those
/// to the database and to clusters.
pub fn connections(wanted: usize) -> usize {
    let limit = match knm_system::raise_open_files_limit() {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn Error,
                "the limit of open files could not be raised"
            );
            return wanted;
        }
    };
    let Some(limit) = limit else {
        return wanted;
    };
    let most = room(limit);
    if wanted <= most {
        return wanted;
    }
    tracing::warn!(
        limit,
        "server.max_connections is {wanted}, but the process may open only {limit} files: {most} connections are held at once, and the most \
         silent ones make room for others; raise the hard limit (LimitNOFILE, ulimit -Hn), or lower server.max_connections to {most}"
    );
    most
}

/// How many connections of callers fit under a limit of open files. Where it is very small they get half of it.
fn room(limit: u64) -> usize {
    let room = limit.saturating_sub(RESERVED).max(limit / 2);
    usize::try_from(room).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_else_is_open_has_its_part_of_the_limit() {
        assert_eq!(room(524_288), 524_032);
        assert_eq!(room(1_024), 768);
        assert_eq!(room(300), 150);
        assert_eq!(room(0), 1);
    }
}
