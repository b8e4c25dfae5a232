//! A rolling restart of all replicas on real PostgreSQL and a real API server: nobody notices.

use std::time::Duration;

use knm_test_support::rollout::{Load, Rollout};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kube-node-manager");

#[test]
fn a_rolling_restart_fails_no_request_and_loses_no_operation_and_no_event() {
    let rollout = Rollout {
        program: PROGRAM.to_owned(),
        replicas: 3,
        operations: 8,
        nodes: 20,
        load: Load {
            callers: 8,
            per_second: 40,
        },
        pre_stop: Duration::from_millis(600),
        propagation: Duration::from_millis(200),
    };
    let Some(seen) = rollout.run() else {
        return;
    };

    assert_eq!(seen.asked.failures, Vec::<String>::new());
    assert!(0 < seen.asked.changes, "{:?}", seen.asked);
    for stopped in &seen.stopped {
        assert_eq!(stopped.code, Some(0), "{stopped:?}");
        assert!(stopped.last_line.contains("\"cut_off\":0"), "{stopped:?}");
    }
    assert_eq!(seen.states, vec!["succeeded"; rollout.operations]);
    assert!(seen.evictions.values().all(|times| *times == 1), "{:?}", seen.evictions);
    assert_eq!(seen.evictions.len(), rollout.operations / 2);
    assert_eq!(seen.accepted_evictions, rollout.operations / 2);
    for followed in &seen.followed {
        assert!(followed.is_whole(), "{followed:?}");
        assert_eq!(followed.refusals, Vec::<String>::new());
    }
    let came_back: usize = seen.followed.iter().map(|followed| followed.came_back).sum();
    assert!(0 < came_back && 0 < seen.watched.0, "no reader was sent away: {seen:?}");
    assert_eq!(seen.differs, Vec::<String>::new());
}
