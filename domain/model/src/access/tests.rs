use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::Timestamp;

fn clusters(names: &[&str]) -> Option<BTreeSet<ClusterName>> {
    Some(names.iter().map(|name| ClusterName::parse(name).unwrap()).collect())
}

fn grant(role: Role, names: Option<&[&str]>, nodes: Option<&str>) -> Grant {
    Grant {
        permissions: role.permissions(),
        clusters: names.and_then(clusters),
        nodes: nodes.map(|text| Selector::parse(text).unwrap()),
    }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn object(object: &serde_json::Value) -> Map<String, Value> {
    object.as_object().unwrap().clone()
}

#[test]
fn roles_allow_more_from_one_to_the_next_and_none_forces() {
    for pair in Role::ALL.windows(2) {
        let (less, more) = (pair[0].permissions(), pair[1].permissions());
        assert!(less.iter().all(|permission| more.contains(permission)) && less != more);
    }
    assert!(
        Role::ALL
            .iter()
            .all(|role| !role.permissions().contains(Permission::Force))
    );
    for role in Role::ALL {
        assert_eq!(Role::parse(role.as_str()), Some(role));
    }
    assert_eq!(Role::parse("root"), None);
}

#[test]
fn what_one_may_not_see_is_hidden_and_what_one_may_not_do_is_refused() {
    let access = Access::new(vec![grant(Role::Viewer, Some(&["a"]), None)]);
    let none = labels(&[]);
    let node = |cluster| Object::Node { cluster, labels: &none };
    let view = [Permission::View];
    let change = [Permission::View, Permission::Change];
    assert_eq!(access.decide(&view, node("a")), Ruling::Allowed);
    assert_eq!(access.decide(&change, node("a")), Ruling::Refused(Permission::Change));
    assert_eq!(access.decide(&view, node("b")), Ruling::Hidden);
    assert_eq!(access.decide(&change, Object::SomeOf("b")), Ruling::Hidden);
    assert_eq!(access.decide(&view, Object::Cluster("a")), Ruling::Allowed);
    assert_eq!(access.decide(&view, Object::Anything), Ruling::Allowed);
    assert_eq!(
        access.decide(&[Permission::Administer], Object::Everything),
        Ruling::Refused(Permission::Administer)
    );
}

#[test]
fn nobody_may_anything_without_a_grant() {
    let none = labels(&[]);
    for object in [
        Object::Anything,
        Object::Everything,
        Object::SomeOf("a"),
        Object::Cluster("a"),
        Object::Node {
            cluster: "a",
            labels: &none,
        },
    ] {
        for permission in Permission::ALL {
            assert_ne!(Access::default().decide(&[permission], object), Ruling::Allowed);
            assert_eq!(Access::unlimited().decide(&[permission], object), Ruling::Allowed);
        }
    }
}

#[test]
fn limits_to_nodes_hold_for_nodes_only() {
    let access = Access::new(vec![grant(Role::Operator, None, Some("pool=gpu"))]);
    let (gpu, cpu) = (labels(&[("pool", "gpu")]), labels(&[("pool", "cpu")]));
    let node = |labels| Object::Node { cluster: "a", labels };
    let change = [Permission::Change];
    assert_eq!(access.decide(&change, node(&gpu)), Ruling::Allowed);
    assert_eq!(access.decide(&change, node(&cpu)), Ruling::Hidden);
    assert_eq!(access.decide(&change, Object::SomeOf("a")), Ruling::Allowed);
    assert_eq!(
        access.decide(&change, Object::Cluster("a")),
        Ruling::Refused(Permission::Change)
    );
    assert_eq!(
        access.decide(&change, Object::Everything),
        Ruling::Refused(Permission::Change)
    );
    assert!(!access.sees_everything());
}

#[test]
fn a_permission_of_one_grant_does_not_go_as_far_as_another_grant() {
    let access = Access::new(vec![
        grant(Role::Viewer, None, None),
        grant(Role::Operator, Some(&["a"]), None),
        Grant {
            permissions: Permissions::of(&[Permission::Force]),
            clusters: clusters(&["b"]),
            nodes: None,
        },
    ]);
    let none = labels(&[]);
    let node = |cluster| Object::Node { cluster, labels: &none };
    let force = [Permission::Drain, Permission::Force];
    assert_eq!(access.decide(&force, node("a")), Ruling::Refused(Permission::Force));
    assert_eq!(access.decide(&force, node("b")), Ruling::Refused(Permission::Drain));
    assert_eq!(access.decide(&[Permission::Drain], node("a")), Ruling::Allowed);
    assert!(access.sees_everything());
}

#[test]
fn labels_that_decide_what_one_may_do_are_guarded() {
    let gpu = grant(Role::Operator, None, Some("pool=gpu,zone"));
    let access = Access::new(vec![gpu.clone(), grant(Role::Viewer, None, Some("!secret"))]);
    for (key, expected) in [("pool", true), ("zone", true), ("secret", true), ("team", false)] {
        assert_eq!(access.guards_label(key), expected, "{key}");
    }
    assert!(!Access::unlimited().guards_label("pool"));
    // Who may see everything gains nothing by a limited grant to see, and much by one to drain.
    let viewer = grant(Role::Viewer, None, None);
    assert!(Access::new(vec![viewer.clone(), gpu.clone()]).guards_label("pool"));
    assert!(!Access::new(vec![viewer, grant(Role::Viewer, Some(&["a"]), Some("pool=gpu"))]).guards_label("pool"));
    let elsewhere = grant(Role::Admin, Some(&["a"]), None);
    assert!(Access::new(vec![elsewhere, gpu]).guards_label("pool"));
}

#[test]
fn one_hands_on_what_one_has_and_no_more() {
    let all = Access::new(vec![grant(Role::Admin, None, None)]);
    let some = Access::new(vec![grant(Role::Admin, Some(&["a", "b"]), None)]);
    let gpus = Access::new(vec![grant(Role::Admin, None, Some("pool=gpu"))]);
    assert!(all.includes(&grant(Role::Admin, None, None)));
    assert!(all.includes(&grant(Role::Viewer, Some(&["x"]), Some("pool=gpu"))));
    let mut forced = grant(Role::Viewer, None, None);
    forced.permissions = forced.permissions.and(Permissions::of(&[Permission::Force]));
    assert!(!all.includes(&forced));
    assert!(some.includes(&grant(Role::Operator, Some(&["a"]), None)));
    assert!(!some.includes(&grant(Role::Viewer, None, None)));
    assert!(!some.includes(&grant(Role::Viewer, Some(&["a", "c"]), None)));
    assert!(gpus.includes(&grant(Role::Viewer, Some(&["a"]), Some("pool=gpu"))));
    assert!(!gpus.includes(&grant(Role::Viewer, Some(&["a"]), None)));
}

#[test]
fn grants_are_parsed_with_everything_that_is_wrong_with_them() {
    let wrong = RawRoleGrant {
        role: "root".to_owned(),
        force: false,
        clusters: Some(vec!["ok".to_owned(), "Not OK".to_owned()]),
        nodes: Some("a in (".to_owned()),
    };
    let errors = RoleGrant::parse(&wrong).unwrap_err();
    let parameters: Vec<_> = errors.iter().map(|error| error.parameter.as_ref()).collect();
    assert_eq!(parameters, ["role", "clusters[1]", "nodes"]);
    assert!(errors[0].message.contains("\"root\"") && errors[0].message.contains("viewer, operator, admin"));
    for (clusters, nodes) in [(Some(vec![]), None), (None, Some(String::new()))] {
        let empty = RawRoleGrant {
            role: "viewer".to_owned(),
            force: false,
            clusters,
            nodes,
        };
        assert_eq!(
            RoleGrant::parse(&empty).unwrap_err().len(),
            1,
            "an empty limit is no limit"
        );
    }
}

#[test]
fn a_selector_that_cannot_be_read_any_more_allows_nothing() {
    let broken = RoleGrant {
        role: Role::Admin,
        force: true,
        clusters: None,
        nodes: Some("a in (".to_owned()),
    };
    assert_eq!(
        Access::new(vec![broken.grant()]).reach(Permission::View, "a"),
        Reach::Nothing
    );
    assert!(!Access::new(vec![broken.grant()]).sees_everything());
}

#[test]
fn tokens_are_read_back_and_a_changed_digit_is_noticed() {
    let token = TokenText::new(TokenId::new([7; 8]), [9; 32]);
    let text = token.reveal();
    assert_eq!(text.len(), 4 + 16 + 1 + 64 + 8);
    let read = TokenText::parse(&text).unwrap();
    assert_eq!((read.id(), read.secret()), (token.id(), token.secret()));
    assert!(!format!("{token:?}").contains("0909"));
    for place in 4..text.len() {
        let mut changed = text.clone().into_bytes();
        if changed[place] == b'_' {
            continue;
        }
        changed[place] = if changed[place] == b'0' { b'1' } else { b'0' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(
            TokenText::parse(&changed).err(),
            Some(TokenError::Checksum),
            "digit {place}"
        );
    }
    for text in [
        "",
        "knm_",
        "knm_07",
        &text[..92],
        &text.to_uppercase(),
        &format!("{text}0"),
        &text.replace("knm_", "xyz_"),
    ] {
        assert_eq!(TokenText::parse(text).err(), Some(TokenError::Form), "{text}");
    }
}

#[test]
fn tokens_do_not_take_the_names_of_others_in_the_audit_log() {
    for name in [
        "anonymous",
        "Anonymous",
        "service",
        "outside",
        "command line",
        "binding/gpu",
        "binding/",
    ] {
        let told = check_token_name(name).unwrap_err().message;
        assert!(told.contains("reserved"), "{told}");
    }
    for name in ["bootstrap", "service-a", "binding", "binding.gpu"] {
        assert_eq!(check_token_name(name), Ok(()), "{name}");
    }
}

#[test]
fn new_tokens_are_checked() {
    let now = Timestamp::parse("2030-01-01T00:00:00Z").unwrap();
    let viewer = RawRoleGrant {
        role: "viewer".to_owned(),
        ..RawRoleGrant::default()
    };
    let token = NewToken::parse("ci", &viewer, None, now).unwrap();
    assert_eq!(token.expires_at.to_string(), "2030-04-01T00:00:00Z");
    let errors = NewToken::parse("a b", &RawRoleGrant::default(), Some(0), now).unwrap_err();
    let parameters: Vec<_> = errors.iter().map(|error| error.parameter.as_ref()).collect();
    assert_eq!(parameters, ["name", "expires_in_days", "role"]);
}

#[test]
fn claims_become_permissions_by_rules() {
    let rule = |claim: &str, value: &str, role: &str| {
        ClaimRule::parse(&RawClaimRule {
            claim: claim.to_owned(),
            value: value.to_owned(),
            grant: RawRoleGrant {
                role: role.to_owned(),
                ..RawRoleGrant::default()
            },
        })
        .unwrap()
    };
    let rules = ClaimRules {
        rules: vec![
            rule("groups", "sre", "operator"),
            rule("realm_access.roles", "root", "admin"),
            rule("https://x.example/role", "see", "viewer"),
        ],
    };
    let change = |claims: Value| {
        rules
            .access(&object(&claims))
            .allows(Permission::Change, Object::Everything)
    };
    let administer = |claims: Value| {
        rules
            .access(&object(&claims))
            .allows(Permission::Administer, Object::Everything)
    };
    assert!(change(json!({"groups": ["dev", "sre"]})));
    assert!(change(json!({"groups": "sre"})));
    assert!(!change(json!({"groups": ["sre-2"], "other": "sre"})));
    assert!(!change(json!({"groups": {"sre": true}})));
    assert!(administer(json!({"realm_access": {"roles": ["root"]}})));
    let see = rules.access(&object(&json!({"https://x.example/role": "see"})));
    assert!(see.sees_everything());
    let claims = object(&json!({"groups": ["sre"], "email": "a@b", "realm_access": {"roles": []}}));
    let relevant = rules.relevant(&claims);
    assert_eq!(relevant.keys().collect::<Vec<_>>(), ["groups", "realm_access"]);
    assert_eq!(rules.access(&relevant), rules.access(&claims));
}

#[test]
fn rules_are_read_from_one_line() {
    let rule = ClaimRule::parse_text("groups=sre -> operator+force in east|west on pool in (a, b)").unwrap();
    assert_eq!((rule.claim.as_str(), rule.value.as_str()), ("groups", "sre"));
    assert_eq!((rule.grant.role, rule.grant.force), (Role::Operator, true));
    assert_eq!(rule.grant.clusters, clusters(&["east", "west"]));
    assert_eq!(rule.grant.nodes.as_deref(), Some("pool in (a, b)"));
    let rule = ClaimRule::parse_text("a.b=Platform Team->viewer").unwrap();
    assert_eq!((rule.value.as_str(), rule.grant.clusters), ("Platform Team", None));
    for wrong in [
        "",
        "groups=sre",
        "sre -> viewer",
        "a=b -> root",
        "a=b -> viewer+all",
        "a=b -> viewer in A",
        "a=b -> viewer on (",
        "=b -> viewer",
    ] {
        assert!(ClaimRule::parse_text(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn somebody_who_got_the_name_of_another_is_somebody_else() {
    let caller = |uid: &str, user: &str| Caller {
        authority: Authority::Kubernetes(KubernetesIdentity {
            user: user.to_owned(),
            uid: uid.to_owned(),
            ..KubernetesIdentity::default()
        }),
        ..Caller::nobody()
    };
    assert_ne!(caller("1", "ann").identity(), caller("2", "ann").identity());
    assert_ne!(caller("1:x", "ann").identity(), caller("1", "x:ann").identity());
    assert_eq!(caller("1", "ann").identity(), caller("1", "ann").identity());
}

#[test]
fn authorities_are_read_back() {
    for authority in [
        Authority::Open,
        Authority::Service,
        Authority::Token(TokenId::new([1; 8])),
        Authority::Kubernetes(KubernetesIdentity {
            user: "alice".to_owned(),
            groups: vec!["sre".to_owned()],
            ..KubernetesIdentity::default()
        }),
        Authority::Oidc {
            subject: "s".to_owned(),
            claims: object(&json!({"groups": ["sre"]})),
            exp: Some(1_900_000_000),
        },
    ] {
        assert_eq!(Authority::from_json(&authority.to_json()), Some(authority));
    }
    let without_end = Authority::from_json(r#"{"oidc":{"subject":"s","claims":{}}}"#);
    assert!(
        matches!(without_end, Some(Authority::Oidc { exp: None, .. })),
        "{without_end:?}"
    );
    assert_eq!(Authority::from_json("{}"), None);
}

#[test]
fn service_accounts_and_nodes_are_nobody_in_other_clusters() {
    let user = |name: &str| KubernetesIdentity {
        user: name.to_owned(),
        groups: ["sre", "system:masters", "system:authenticated"]
            .map(str::to_owned)
            .to_vec(),
        extra: BTreeMap::from([("scopes".to_owned(), vec!["x".to_owned()])]),
        ..KubernetesIdentity::default()
    };
    assert_eq!(user("system:serviceaccount:a:b").elsewhere(), None);
    assert_eq!(user("system:node:n").elsewhere(), None);
    let alice = user("alice").elsewhere().unwrap();
    assert_eq!(alice.groups, ["sre", "system:authenticated"]);
    assert!(alice.extra.is_empty());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_of_tokens_panic(text in "\\PC*|knm_[0-9a-f]{16}_[0-9a-f]{72}|knm_[^a]{90}") {
        let _ = TokenText::parse(&text);
    }

    #[test]
    fn a_token_is_read_as_it_was_written(id in any::<[u8; 8]>(), secret in any::<[u8; 32]>(), place in 0_usize..93, other in "\\PC") {
        let token = TokenText::new(TokenId::new(id), secret);
        let text = token.reveal();
        let read = TokenText::parse(&text).unwrap();
        prop_assert_eq!((read.id(), read.secret()), (token.id(), &secret));
        prop_assert_eq!(TokenId::parse(&token.id().to_string()), Some(token.id()));
        // No other text means the same token.
        let mut changed = text.clone();
        changed.replace_range(place..=place, &other);
        prop_assert!(changed == text || TokenText::parse(&changed).is_err(), "{}", changed);
        let shown = format!("{token:?}");
        prop_assert!(!shown.contains(&text[21..]));
    }

    #[test]
    fn no_text_makes_the_parser_of_rules_panic(text in "\\PC*|(=|->| in | on |\\||\\+force|[a-z(]){0,40}") {
        let _ = ClaimRule::parse_text(&text);
    }

    #[test]
    fn a_rule_is_read_as_it_was_written(
        claim in "[a-z_.]{1,20}",
        value in "[a-z*][a-z =,()/-]{0,20}[a-z]|\\*",
        role in 0_usize..3,
        force in any::<bool>(),
        clusters in proptest::option::of(proptest::collection::vec("[a-z]{1,8}", 1..4)),
        nodes in proptest::option::of("[a-z]{1,8}(=[a-z]{1,8})?| [a-z]{1,8} in \\([a-z]{1,3}, [a-z]{1,3}\\)"),
    ) {
        let mut text = format!("{claim}={value} -> {}", Role::ALL[role].as_str());
        text.push_str(if force { "+force" } else { "" });
        if let Some(clusters) = &clusters {
            text.push_str(&format!(" in {}", clusters.join("|")));
        }
        if let Some(nodes) = &nodes {
            text.push_str(&format!(" on {nodes}"));
        }
        let nodes = nodes.map(|nodes| nodes.trim().to_owned());
        let role = Role::ALL[role].as_str().to_owned();
        let raw = RawClaimRule { claim, value, grant: RawRoleGrant { role, force, clusters, nodes } };
        prop_assert_eq!(ClaimRule::parse_text(&text), ClaimRule::parse(&raw));
        prop_assert!(ClaimRule::parse(&raw).is_ok());
    }

    /// The rule in other words: a permission is there if some grant has it and goes as far.
    #[test]
    fn more_grants_never_allow_less(bits in proptest::collection::vec((0_usize..3, 0_usize..3, 0_usize..3), 0..5)) {
        let grants: Vec<Grant> = bits
            .iter()
            .map(|(role, cluster, nodes)| {
                let names: Option<&[&str]> = [None, Some(&["a"][..]), Some(&["b"][..])][*cluster];
                grant(Role::ALL[*role], names, [None, Some("p=1"), Some("!p")][*nodes])
            })
            .collect();
        let one = labels(&[("p", "1")]);
        let node = Object::Node { cluster: "a", labels: &one };
        let mut allowed = false;
        for count in 0..=grants.len() {
            let access = Access::new(grants[..count].to_vec());
            for permission in Permission::ALL {
                let expected = grants[..count].iter().any(|grant| {
                    grant.permissions.contains(permission)
                        && grant.clusters.as_ref().is_none_or(|clusters| clusters.contains("a"))
                        && grant.nodes.as_ref().is_none_or(|nodes| nodes.matches(&one))
                });
                prop_assert_eq!(access.allows(permission, node), expected);
            }
            let now = access.allows(Permission::Change, node);
            prop_assert!(now || !allowed);
            allowed = now;
        }
    }
}
