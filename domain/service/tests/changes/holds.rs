//! Cordons that hold.

use knm_domain::{ChangeError, Uncordon};
use knm_model::{CordonSource, HoldRequest, Timestamp};

use crate::stage::{Stage, because, by, name};

#[tokio::test(start_paused = true)]
async fn a_node_is_schedulable_again_when_its_last_hold_is_released() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    let held = stage.cordon("bob", "kernel").await;
    let cordon = held.cordon.unwrap();
    assert_eq!(cordon.source, CordonSource::KubeNodeManager);
    let noted: Vec<_> = cordon.holds.iter().map(|hold| hold.by.as_deref().unwrap()).collect();
    assert_eq!(noted, ["ann", "bob"]);

    let after_ann = stage.uncordon("ann", Uncordon::default()).await.unwrap();
    assert!(!after_ann.schedulable);
    assert_eq!(after_ann.cordon.unwrap().by.as_deref(), Some("bob"));

    let after_bob = stage.uncordon("bob", Uncordon::default()).await.unwrap();
    assert_eq!((after_bob.schedulable, after_bob.cordon), (true, None));
    assert_eq!(stage.holds().await, []);
}

#[tokio::test(start_paused = true)]
async fn holds_of_others_are_released_by_name_or_force_only() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    stage.cordon("bob", "kernel").await;

    let refused = stage.uncordon("eve", Uncordon::default()).await;
    let Err(ChangeError::HeldByOthers { holders, .. }) = refused else {
        unreachable!("{refused:?}");
    };
    assert_eq!(holders, ["ann (disk)", "bob (kernel)"]);

    let ann = stage.holds().await[0].id;
    let named = Uncordon {
        hold: Some(ann),
        ..Uncordon::default()
    };
    assert!(!stage.uncordon("eve", named.clone()).await.unwrap().schedulable);
    let gone = stage.uncordon("eve", named).await;
    assert!(matches!(gone, Err(ChangeError::UnknownHold { .. })), "{gone:?}");

    let force = Uncordon {
        force: true,
        ..Uncordon::default()
    };
    assert!(stage.uncordon("eve", force).await.unwrap().schedulable);
    assert_eq!(stage.holds().await, []);
}

#[tokio::test(start_paused = true)]
async fn the_same_hold_again_only_gets_another_end() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    let until = Timestamp::parse("2030-02-01T00:00:00Z").ok();
    let request = HoldRequest {
        until,
        ..because("disk")
    };

    let changed = stage.changes.cordon("test", "a", request, by("ann")).await.unwrap();

    let holds = stage.holds().await;
    assert_eq!((holds.len(), holds[0].until), (1, until));
    let noted = changed.node.cordon.unwrap().holds;
    assert_eq!((noted.len(), noted[0].until), (1, until));
}

#[tokio::test(start_paused = true)]
async fn what_was_cordoned_before_us_stays_cordoned_after_us() {
    let stage = Stage::new().await;
    stage.set_schedulable(false).await;

    let refused = stage.uncordon("ann", Uncordon::default()).await;
    assert!(matches!(refused, Err(ChangeError::Foreign { .. })), "{refused:?}");

    stage.cordon("ann", "disk").await;
    stage.cordon("bob", "kernel").await;
    stage.uncordon("ann", Uncordon::default()).await.unwrap();
    let left = stage.uncordon("bob", Uncordon::default()).await.unwrap();
    assert!(!left.schedulable);
    assert_eq!(left.cordon.unwrap().source, CordonSource::Foreign);

    let force = Uncordon {
        force: true,
        ..Uncordon::default()
    };
    assert!(stage.uncordon("ann", force).await.unwrap().schedulable);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_could_not_be_brought_onto_the_node_is_gone() {
    let stage = Stage::new().await;
    stage.fleet.delete_node(&name());
    let outcome = stage.changes.cordon("test", "a", because("disk"), by("ann")).await;
    assert!(outcome.is_err());
    assert_eq!(stage.holds().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_new_hold_does_not_bring_back_those_that_kubectl_ended() {
    let stage = Stage::new().await;
    stage.cordon("ann", "disk").await;
    stage.set_schedulable(true).await;

    let held = stage.cordon("bob", "kernel").await;

    let noted = held.cordon.unwrap().holds;
    assert_eq!((noted.len(), noted[0].by.as_deref()), (1, Some("bob")));
    assert_eq!(stage.holds().await.len(), 1);
    assert!(stage.uncordon("bob", Uncordon::default()).await.unwrap().schedulable);
}
