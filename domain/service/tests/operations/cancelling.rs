//! What is told of nodes whose operation was cancelled.

use std::sync::Arc;
use std::time::Duration;

use knm_model::{AuditOutcome, OperationKind, TargetState, Wish};
use serde_json::json;

use crate::around::Slow;
use crate::stage::{Stage, request};
use crate::through::through;

#[tokio::test(start_paused = true)]
async fn nobody_knows_what_became_of_a_node_whose_change_was_sent_and_not_answered() {
    for (kind, options) in [
        (OperationKind::Label, json!({"set": {"team": "web"}})),
        (
            OperationKind::Taint,
            json!({"add": [{"key": "team", "effect": "NoSchedule"}]}),
        ),
        (OperationKind::Cordon, json!({})),
        (OperationKind::Uncordon, json!({"force": true})),
    ] {
        let stage = Stage::seen_through(&["a", "b"], false, |inner| {
            through(Arc::new(Slow {
                patch_seconds: 3_600,
                ..Slow::new(inner)
            }))
        })
        .await;
        if kind == OperationKind::Uncordon {
            let mut cordoned = crate::nodes::node("a", "2");
            cordoned.schedulable = false;
            stage.fleet.put_node(cordoned);
            crate::nodes::settle().await;
        }
        let mut wanted = request(kind, &["a", "b"], options);
        wanted.reason = Some("disks".to_owned());
        wanted.strategy.max_concurrent = Some(1);
        let id = stage.accept(wanted).await.unwrap().operation.id;
        let first = stage.replica("one");
        tokio::time::sleep(Duration::from_secs(10)).await;
        first.kill();
        stage.wish(id, Wish::Cancel).await;
        let _second = stage.replica("two");
        let shown = stage.end(id).await;

        let told = |place: usize| {
            let target = &shown.targets[place];
            (target.state, target.message.clone().unwrap_or_default())
        };
        assert!(
            matches!(told(0), (TargetState::Cancelled, message) if message.contains("not known")),
            "{shown:?}"
        );
        assert!(
            matches!(told(1), (TargetState::Cancelled, message) if message.contains("before anything was changed")),
            "{shown:?}"
        );
        let audit = stage.audit().await;
        let of_operation: Vec<_> = audit.iter().filter(|record| record.operation == Some(id)).collect();
        assert_eq!(of_operation.len(), 1, "{audit:?}");
        let completion = of_operation[0].completion.as_ref().unwrap();
        assert_eq!(completion.outcome, AuditOutcome::Unknown);
        assert!(
            completion.error.as_ref().unwrap().contains("not known"),
            "{completion:?}"
        );
    }
}
