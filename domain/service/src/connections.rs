//! Whether the replicas together may open more connections than the store allows.

use std::sync::Arc;
use std::time::Duration;

use knm_ports::{ConnectionDemand, StorageAdmin};
use tokio_util::sync::CancellationToken;

/// How often is looked: replicas and limits come and go.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Looks now and then, and warns once of each demand that does not fit.
pub struct ConnectionWatch {
    storage: Arc<dyn StorageAdmin>,
    warned_of: Option<(u32, u32, u32)>,
}

/// What is worth a line in the log.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// It does not fit, and that is new.
    TooMany,
    /// It fits again.
    Fits,
}

impl ConnectionWatch {
    /// Nothing is looked at yet.
    #[must_use]
    pub fn new(storage: Arc<dyn StorageAdmin>) -> Self {
        Self {
            storage,
            warned_of: None,
        }
    }

    /// Looks until `shutdown` is cancelled. A store that does not answer is for the health check to tell.
    pub async fn keep(mut self, shutdown: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        while shutdown.run_until_cancelled(looks.tick()).await.is_some() {
            let asked = shutdown.run_until_cancelled(self.storage.demand()).await;
            if let Some(Ok(Some(demand))) = asked {
                self.tell(&demand);
            }
        }
    }

    fn tell(&mut self, demand: &ConnectionDemand) {
        let Some(news) = self.news(demand) else {
            return;
        };
        let (replicas, each, wanted, left) = (demand.replicas, demand.each, demand.wanted(), demand.left());
        match news {
            News::TooMany => tracing::warn!(
                replicas,
                each,
                wanted,
                allowed = demand.allowed,
                others = demand.others,
                "{} may open {wanted} database connections, and {} leaves {left} for them: {}",
                if replicas == 1 {
                    "one replica".to_owned()
                } else {
                    format!("{replicas} replicas")
                },
                demand.limit.as_str(),
                advice(demand)
            ),
            News::Fits => tracing::info!(
                replicas,
                wanted,
                left,
                "the database allows all connections of all replicas again"
            ),
        }
    }

    /// What others have now comes and goes, so that alone is no news.
    fn news(&mut self, demand: &ConnectionDemand) -> Option<News> {
        if demand.fits() {
            return self.warned_of.take().map(|_| News::Fits);
        }
        let what = (demand.replicas, demand.each, demand.allowed);
        (self.warned_of.replace(what) != Some(what)).then_some(News::TooMany)
    }
}

/// What somebody can do about it.
fn advice(demand: &ConnectionDemand) -> String {
    let (missing, limit) = (demand.wanted() - demand.left(), demand.limit.as_str());
    let raise = format!("raise {limit} by at least {missing}");
    // Of what each may have, one is beside the pool.
    match (demand.left() / demand.replicas.max(1)).checked_sub(1) {
        Some(pool) if 1 <= pool => format!("lower database.max_open_conns to {pool}, or {raise}"),
        Some(_) | None => raise,
    }
}

#[cfg(test)]
mod tests {
    use knm_ports::{ConnectionLimit, MockStorageAdmin};

    use super::*;

    fn demand(replicas: u32, allowed: u32, others: u32) -> ConnectionDemand {
        ConnectionDemand {
            replicas,
            each: 26,
            allowed,
            others,
            limit: ConnectionLimit::Server,
        }
    }

    fn watch(storage: MockStorageAdmin) -> ConnectionWatch {
        ConnectionWatch::new(Arc::new(storage))
    }

    #[test]
    fn each_demand_that_does_not_fit_is_told_once_and_its_end_too() {
        let mut watch = watch(MockStorageAdmin::new());
        let steps = [
            (demand(3, 97, 0), None),
            (demand(4, 97, 0), Some(News::TooMany)),
            (demand(4, 97, 9), None),
            (demand(5, 97, 0), Some(News::TooMany)),
            (demand(3, 97, 0), Some(News::Fits)),
            (demand(3, 97, 0), None),
            (demand(3, 97, 20), Some(News::TooMany)),
        ];
        for (number, (demand, expected)) in steps.iter().enumerate() {
            assert_eq!(watch.news(demand), *expected, "step {number}");
        }
    }

    #[test]
    fn the_advice_is_a_pool_that_fits_or_else_a_higher_limit() {
        let of = |replicas, allowed, others| advice(&demand(replicas, allowed, others));
        assert_eq!(
            of(4, 97, 1),
            "lower database.max_open_conns to 23, or raise max_connections by at least 8"
        );
        assert_eq!(of(10, 12, 0), "raise max_connections by at least 248");
        for (replicas, allowed) in [(4, 97), (7, 33), (2, 4)] {
            let pool = allowed / replicas - 1;
            let fitting = ConnectionDemand {
                each: pool + 1,
                ..demand(replicas, allowed, 0)
            };
            assert!(fitting.fits(), "{fitting:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_asked_again() {
        let mut storage = MockStorageAdmin::new();
        let mut answers = vec![
            Ok(Some(demand(9, 97, 0))),
            Ok(None),
            Err(knm_ports::StorageError::Conflict { what: "x" }),
        ];
        let shutdown = CancellationToken::new();
        let end = shutdown.clone();
        storage.expect_demand().times(3).returning(move || {
            let answer = answers.pop().expect("three are asked for");
            if answers.is_empty() {
                end.cancel();
            }
            answer
        });
        watch(storage).keep(shutdown).await;
    }
}
