//! Whether an object is what an API server's own schemas say: a field that they do not know is wrong, too.

use std::fs;
use std::path::{Path, PathBuf};

use knm_test_support::skip;
use serde_json::{Map, Value};

/// The schemas of all groups that are there, one document a group.
pub struct Schemas(Vec<Map<String, Value>>);

impl Schemas {
    /// Reads them; `None`, after saying so, where they are missing.
    pub fn read() -> Option<Self> {
        let folder = std::env::var_os("KNM_TEST_KUBERNETES_SCHEMAS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/kubernetes-1.36-openapi"),
            PathBuf::from,
        );
        let Ok(files) = fs::read_dir(&folder) else {
            skip(
                "schemas",
                "KNM_TEST_KUBERNETES_SCHEMAS, a folder with what an API server answers under /openapi/v3/…, a file for each group",
            );
            return None;
        };
        let documents = files
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().is_some_and(|one| one == "json"))
            .map(|path| {
                let mut document: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
                match document["components"]["schemas"].take() {
                    Value::Object(schemas) => schemas,
                    other => panic!("no schemas: {other}"),
                }
            })
            .collect();
        Some(Self(documents))
    }

    /// What is wrong with an object, each with its place; `None` if there is no schema for its kind.
    pub fn check(&self, object: &Value) -> Option<Vec<String>> {
        let (group, version) = match object["apiVersion"].as_str()?.split_once('/') {
            Some(parts) => parts,
            None => ("", object["apiVersion"].as_str()?),
        };
        let describes = |schema: &&Value| {
            let kinds = schema["x-kubernetes-group-version-kind"].as_array();
            kinds.into_iter().flatten().any(|one| {
                (&one["group"], &one["version"], &one["kind"]) == (&group.into(), &version.into(), &object["kind"])
            })
        };
        self.0.iter().find_map(|schemas| {
            let schema = schemas.values().find(describes)?;
            let mut check = Check {
                schemas,
                wrong: Vec::new(),
            };
            check.value(schema, object, object["kind"].as_str()?);
            Some(check.wrong)
        })
    }
}

struct Check<'a> {
    schemas: &'a Map<String, Value>,
    wrong: Vec<String>,
}

impl Check<'_> {
    fn value(&mut self, schema: &Value, value: &Value, at: &str) {
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.trim_start_matches("#/components/schemas/");
            let schemas = self.schemas;
            self.value(&schemas[name], value, at);
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.value(part, value, at);
        }
        if let Some(choices) = schema["oneOf"].as_array()
            && !choices.iter().any(|one| self.fits(one, value))
        {
            self.wrong.push(format!("{at}: {value} is of another type"));
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            self.wrong.push(format!("{at}: {value} is none of {allowed:?}"));
        }
        match (schema["type"].as_str(), value) {
            (None, _) | (Some("string"), Value::String(_)) | (Some("boolean"), Value::Bool(_)) => {}
            (Some("number"), Value::Number(_)) => {}
            (Some("integer"), Value::Number(number)) if number.is_i64() => {}
            (Some("array"), Value::Array(items)) => {
                for (number, item) in items.iter().enumerate() {
                    self.value(&schema["items"], item, &format!("{at}[{number}]"));
                }
            }
            (Some("object"), Value::Object(fields)) => self.object(schema, fields, at),
            (Some(expected), _) => self.wrong.push(format!("{at}: {value} is no {expected}")),
        }
    }

    fn object(&mut self, schema: &Value, fields: &Map<String, Value>, at: &str) {
        let known = schema["properties"].as_object();
        let others = schema.get("additionalProperties");
        for (name, value) in fields {
            let at = format!("{at}.{name}");
            match (known.and_then(|known| known.get(name)), others) {
                (Some(schema), _) | (None, Some(schema)) => self.value(schema, value, &at),
                // What says nothing about its fields takes all of them.
                (None, None) if known.is_none() => {}
                (None, None) => self.wrong.push(format!("{at}: there is no such field")),
            }
        }
        let required = schema["required"].as_array().into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                self.wrong.push(format!("{at}.{name}: it is missing"));
            }
        }
    }

    fn fits(&self, schema: &Value, value: &Value) -> bool {
        let mut other = Check {
            schemas: self.schemas,
            wrong: Vec::new(),
        };
        other.value(schema, value, "");
        other.wrong.is_empty()
    }
}
