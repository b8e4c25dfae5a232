use super::*;
use crate::fixture::pod;

fn parse(change: impl FnOnce(&mut RawDrainOptions)) -> Result<DrainOptions, Vec<QueryError>> {
    let mut raw = RawDrainOptions::default();
    change(&mut raw);
    DrainOptions::parse(&raw)
}

#[test]
fn everything_destructive_is_off_unless_asked_for() {
    let options = parse(|_| {}).unwrap();
    assert_eq!(options, DrainOptions::default());
    assert!(!options.force && !options.ignore_daemonsets && !options.delete_emptydir_data);
    assert_eq!(
        (options.removal, options.after_deadline),
        (Removal::Evict, AfterDeadline::Fail)
    );
    assert_eq!((options.grace_period_seconds, options.timeout), (None, None));
    assert_eq!(options.on_cancel, OnCancel::KeepCordoned);
}

#[test]
fn minus_one_is_the_pods_own_grace_period_and_0_is_none() {
    let grace = |seconds| parse(|raw| raw.grace_period_seconds = Some(seconds)).map(|one| one.grace_period_seconds);
    assert_eq!(grace(-1), Ok(None));
    assert_eq!(grace(0), Ok(Some(0)));
    assert_eq!(grace(86_400), Ok(Some(86_400)));
}

#[test]
fn a_timeout_of_0_is_none() {
    let timeout = |seconds| parse(|raw| raw.timeout_seconds = Some(seconds)).unwrap().timeout;
    assert_eq!((timeout(0), timeout(1)), (None, Some(Duration::from_secs(1))));
    let skip = |seconds| {
        let options = parse(|raw| raw.skip_wait_for_delete_timeout_seconds = Some(seconds));
        options.unwrap().skip_wait_for_delete_timeout
    };
    assert_eq!((skip(0), skip(9)), (None, Some(Duration::from_secs(9))));
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_what_is_allowed() {
    let tier = |selector: Option<&str>, class: Option<&str>| RawTier {
        pod_selector: selector.map(str::to_owned),
        priority_class: class.map(str::to_owned),
    };
    let errors = parse(|raw| {
        raw.grace_period_seconds = Some(-2);
        raw.timeout_seconds = Some(604_801);
        raw.pod_selector = Some("a b".into());
        raw.skip_wait_for_delete_timeout_seconds = Some(-1);
        raw.order = vec![
            tier(Some("a="), None),
            tier(None, None),
            tier(Some("a"), Some("b")),
            tier(Some("="), None),
            tier(None, Some("")),
        ];
        raw.wait_for_completion = Some(String::new());
        raw.after_deadline = Some("give up".into());
        raw.max_concurrent_evictions = Some(0);
        raw.on_cancel = Some("Restore".into());
    })
    .unwrap_err();
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let expected = [
        "grace_period_seconds: -2 is not allowed: -1 to 86400 is",
        "timeout_seconds: 604801 is not allowed: 0 to 604800 is",
        "pod_selector: ",
        "skip_wait_for_delete_timeout_seconds: -1 is not allowed: 0 to 604800 is",
        "order[1]: a tier has either a pod_selector or a priority_class",
        "order[2]: a tier has either a pod_selector or a priority_class",
        "order[3].pod_selector: ",
        "order[4].priority_class: \"\" is not allowed: a name of 1 to 253 characters is",
        "after_deadline: \"give up\" is not allowed: fail or force is",
        "max_concurrent_evictions: 0 is not allowed: 1 to 1000 is",
        "on_cancel: \"Restore\" is not allowed: keep_cordoned or restore is",
        "wait_for_completion: an empty selector",
    ];
    assert_eq!(texts.len(), expected.len(), "{texts:#?}");
    for (text, start) in texts.iter().zip(expected) {
        assert!(text.starts_with(start), "{text} does not start with {start}");
    }
    assert_eq!(errors[2].position, Some(3));
}

#[test]
fn force_after_the_deadline_needs_a_deadline() {
    let forced = |timeout| {
        parse(|raw| {
            raw.after_deadline = Some("force".into());
            raw.timeout_seconds = timeout;
        })
    };
    assert_eq!(forced(Some(60)).unwrap().after_deadline, AfterDeadline::Force);
    for timeout in [None, Some(0)] {
        assert_eq!(forced(timeout).unwrap_err()[0].parameter, "after_deadline");
    }
}

#[test]
fn a_pod_belongs_to_its_first_tier_or_comes_last() {
    let options = parse(|raw| {
        raw.order = vec![
            RawTier {
                pod_selector: Some("app=web".into()),
                ..RawTier::default()
            },
            RawTier {
                priority_class: Some("low".into()),
                ..RawTier::default()
            },
        ];
    })
    .unwrap();
    let mut both = pod("both");
    both.labels.insert("app".into(), "web".into());
    both.priority_class = Some("low".into());
    let mut low = pod("low");
    low.priority_class = Some("low".into());
    let places = [&both, &low, &pod("other")].map(|pod| options.tier_of(pod));
    assert_eq!(places, [0, 1, 2]);
}
