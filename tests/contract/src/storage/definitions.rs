//! Templates and bindings.

use futures::future::join_all;
use knm_model::{Definition, DefinitionKind, DefinitionName, Timestamp};
use knm_ports::StorageError;
use serde_json::json;

use super::StorageFixture;

fn name(text: &str) -> DefinitionName {
    DefinitionName::parse(text).expect("the case's name is valid")
}

/// A version of a template with nanoseconds in its time, which no store keeps.
fn template(called: &str, version: u32) -> Definition {
    let content =
        json!({"labels": {"pool": format!("gpu-{version}")}, "description": "Grafikkarten \u{2603} 'a' \"b\""});
    Definition {
        kind: DefinitionKind::Template,
        name: name(called),
        version,
        content: content.as_object().cloned(),
        changed_at: Timestamp::parse("2030-01-01T00:00:00.123456789Z").expect("the case's time is valid"),
        changed_by: "ann".to_owned(),
    }
}

fn deleted(definition: Definition) -> Definition {
    Definition {
        content: None,
        ..definition
    }
}

fn stored(definition: &Definition) -> Definition {
    Definition {
        changed_at: Timestamp::parse("2030-01-01T00:00:00.123Z").expect("the case's time is valid"),
        ..definition.clone()
    }
}

async fn add(fixture: &StorageFixture, definitions: &[Definition]) {
    let store = &fixture.migrated().await.definitions;
    for definition in definitions {
        store.add(definition).await.expect("the version is free");
    }
}

/// `versions` MUST return what was stored, its times to the millisecond, and those that say that it was deleted, too.
pub async fn versions_are_returned_as_they_were_stored(fixture: &StorageFixture) {
    let all = [template("gpu", 1), template("gpu", 2), deleted(template("gpu", 10))];
    add(fixture, &all).await;
    add(fixture, &[template("gpu-2", 1)]).await;

    let replica = &fixture.replica.definitions;
    let found = replica.versions(DefinitionKind::Template, &name("gpu")).await;

    let expected: Vec<Definition> = all.iter().rev().map(stored).collect();
    assert_eq!(found.expect("an answer"), expected);
    let none = replica.versions(DefinitionKind::Template, &name("cpu")).await;
    assert_eq!(none.expect("an answer"), []);
}

/// `add` MUST return a conflict if the definition has a version of this number, and leave that as it was.
pub async fn a_taken_version_is_a_conflict_and_stays_as_it_was(fixture: &StorageFixture) {
    add(fixture, &[template("gpu", 1)]).await;
    let store = &fixture.storage.definitions;

    let other = Definition {
        changed_by: "bob".to_owned(),
        ..template("gpu", 1)
    };
    let refused = store.add(&other).await;

    assert!(matches!(refused, Err(StorageError::Conflict { .. })), "{refused:?}");
    let found = store.versions(DefinitionKind::Template, &name("gpu")).await;
    assert_eq!(found.expect("an answer"), [stored(&template("gpu", 1))]);
}

/// `add` MUST let exactly one of several writers add a version.
pub async fn of_several_writers_one_adds_a_version(fixture: &StorageFixture) {
    let one = &fixture.migrated().await.definitions;
    let other = &fixture.replica.definitions;
    let versions: Vec<Definition> = (0..8)
        .map(|writer| Definition {
            changed_by: format!("writer-{writer}"),
            ..template("gpu", 1)
        })
        .collect();

    let results = join_all(versions.iter().enumerate().map(|(turn, version)| {
        let store = if turn % 2 == 0 { one } else { other };
        store.add(version)
    }))
    .await;

    let winner = results.iter().position(Result::is_ok).expect("one of them");
    for (turn, result) in results.iter().enumerate() {
        let is_refused = matches!(result, Err(StorageError::Conflict { .. }));
        assert!(is_refused || turn == winner, "{results:?}");
    }
    let found = one.versions(DefinitionKind::Template, &name("gpu")).await;
    assert_eq!(found.expect("an answer")[0].changed_by, format!("writer-{winner}"));
}

/// `list` MUST return the latest version of each definition, sorted by name, and leave out those that were deleted.
pub async fn a_list_has_the_latest_version_of_each_definition_that_is_not_deleted(fixture: &StorageFixture) {
    let again = template("again", 3);
    add(
        fixture,
        &[
            template("gpu", 1),
            template("gpu", 9),
            template("gpu", 10),
            template("gone", 1),
            deleted(template("gone", 2)),
            again.clone(),
            template("again", 1),
            deleted(template("again", 2)),
            template("a-b", 1),
            template("a1", 1),
        ],
    )
    .await;

    let found = fixture.replica.definitions.list(DefinitionKind::Template).await;

    let expected = [template("a-b", 1), template("a1", 1), again, template("gpu", 10)];
    let expected: Vec<Definition> = expected.iter().map(stored).collect();
    assert_eq!(found.expect("an answer"), expected);
}

/// `list` and `versions` MUST keep the kinds apart.
pub async fn templates_and_bindings_of_one_name_are_different_things(fixture: &StorageFixture) {
    let binding = Definition {
        kind: DefinitionKind::Binding,
        ..template("gpu", 1)
    };
    add(fixture, &[template("gpu", 1), template("gpu", 2), binding.clone()]).await;

    let store = &fixture.storage.definitions;
    let listed = store.list(DefinitionKind::Binding).await.expect("an answer");
    assert_eq!(listed, [stored(&binding)]);
    let versions = store.versions(DefinitionKind::Binding, &name("gpu")).await;
    assert_eq!(versions.expect("an answer"), [stored(&binding)]);
    let templates = store.list(DefinitionKind::Template).await.expect("an answer");
    assert_eq!(templates, [stored(&template("gpu", 2))]);
}
