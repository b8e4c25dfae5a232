//! What a line looks like.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;

use knm_model::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use tracing::Level;

use crate::Identity;
use crate::layer::{Fields, Recorded};

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LogFormat {
    /// For people.
    Text,
    /// The frame that version 1 promised.
    Json,
    /// For the command-line tool `bunyan`.
    Bunyan,
}

impl LogFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Text, Self::Json, Self::Bunyan];

    /// `text`, `json` or `bunyan`, as the configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Bunyan => "bunyan",
        }
    }

    /// Reads [`LogFormat::as_str`] back, `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == text)
    }

    pub(crate) fn from_number(number: u8) -> Self {
        Self::ALL
            .into_iter()
            .find(|format| *format as u8 == number)
            .unwrap_or(Self::Text)
    }
}

/// Room for most lines.
const USUAL_BYTES: usize = 512;

/// Everything that a line is made of.
pub(crate) struct Line<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) time: Timestamp,
    pub(crate) level: Level,
    pub(crate) target: &'a str,
    pub(crate) caller: Caller<'a>,
    pub(crate) recorded: Recorded,
}

/// Where in the code a line comes from.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) file: &'a str,
    pub(crate) line: u32,
}

impl Serialize for Caller<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:{}", relative(self.file), self.line))
    }
}

#[derive(Serialize)]
struct JsonFrame<'a> {
    timestamp: String,
    level: &'static str,
    service: &'a str,
    version: &'a str,
    hostname: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    caller: Caller<'a>,
    fields: &'a Fields,
}

#[derive(Serialize)]
struct BunyanFrame<'a> {
    v: u8,
    name: &'a str,
    msg: &'a str,
    level: u8,
    hostname: &'a str,
    pid: u32,
    time: String,
    target: &'a str,
    caller: Caller<'a>,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// What bunyan's frame uses itself: a field of that name gets an underscore behind it.
const BUNYAN_KEYS: [&str; 12] = [
    "v",
    "name",
    "msg",
    "level",
    "hostname",
    "pid",
    "time",
    "target",
    "caller",
    "version",
    "request_id",
    "error",
];

impl Line<'_> {
    pub(crate) fn write(&self, format: LogFormat) -> Vec<u8> {
        let mut line = match format {
            LogFormat::Text => self.text().into_bytes(),
            LogFormat::Json => self.json(),
            LogFormat::Bunyan => self.bunyan(),
        };
        line.push(b'\n');
        line
    }

    fn text(&self) -> String {
        let mut line = String::with_capacity(USUAL_BYTES);
        // Writing into a text cannot fail.
        let _ = write!(
            line,
            "{:.6} {:>5} {}",
            self.time,
            self.level,
            one_line(&self.recorded.message)
        );
        for (name, value) in self.recorded.fields.iter() {
            match value {
                Value::String(text) => add(&mut line, name, text),
                other => {
                    let _ = write!(line, " {name}={other}");
                }
            }
        }
        if let Some(request_id) = &self.recorded.request_id {
            add(&mut line, "request_id", request_id);
        }
        if let Some(error) = &self.recorded.error {
            add(&mut line, "error", error);
        }
        line
    }

    fn json(&self) -> Vec<u8> {
        bytes(&JsonFrame {
            timestamp: format!("{:.9}", self.time),
            level: self.level.as_str(),
            service: &self.identity.service,
            version: &self.identity.version,
            hostname: &self.identity.hostname,
            message: &self.recorded.message,
            request_id: self.recorded.request_id.as_deref(),
            error: self.recorded.error.as_deref(),
            caller: self.caller,
            fields: &self.recorded.fields,
        })
    }

    fn bunyan(&self) -> Vec<u8> {
        let free = |name: &str| match BUNYAN_KEYS.contains(&name) {
            true => format!("{name}_"),
            false => name.to_owned(),
        };
        bytes(&BunyanFrame {
            v: 0,
            name: &self.identity.service,
            msg: &self.recorded.message,
            level: bunyan_level(self.level),
            hostname: &self.identity.hostname,
            pid: std::process::id(),
            time: format!("{:.3}", self.time),
            target: self.target,
            caller: self.caller,
            version: &self.identity.version,
            request_id: self.recorded.request_id.as_deref(),
            error: self.recorded.error.as_deref(),
            fields: self
                .recorded
                .fields
                .iter()
                .map(|(name, value)| (free(name), value.clone()))
                .collect(),
        })
    }
}

/// A source file's path without what is before the project or the third-party crate: the machine that compiled it is nobody's
/// business.
pub(crate) fn relative(file: &str) -> &str {
    if let Some((_, inside)) = file.split_once("/registry/src/") {
        return inside.split_once('/').map_or(inside, |(_, crate_file)| crate_file);
    }
    if let Some((_, inside)) = file.split_once("/rustc/") {
        return inside.split_once('/').map_or(inside, |(_, library)| library);
    }
    match file.starts_with('/') {
        true => file.rsplit('/').next().unwrap_or(file),
        false => file,
    }
}

/// Adds a field, in quotes where its end could not be told without.
fn add(line: &mut String, name: &str, value: &str) {
    let is_plain = |byte: u8| !matches!(byte, b' ' | b'"' | b'\n' | b'\r' | b'\t' | 0x1b);
    line.push(' ');
    line.push_str(name);
    line.push('=');
    if !value.is_empty() && value.bytes().all(is_plain) {
        line.push_str(value);
    } else {
        // Writing into a text cannot fail.
        let _ = write!(line, "{value:?}");
    }
}

/// A message stays on its line, whatever somebody put into it.
fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        return text.escape_debug().to_string().into();
    }
    text.into()
}

fn bunyan_level(level: Level) -> u8 {
    match level {
        Level::ERROR => 50,
        Level::WARN => 40,
        Level::INFO => 30,
        Level::DEBUG => 20,
        Level::TRACE => 10,
    }
}

fn bytes(frame: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    if let Err(error) = serde_json::to_writer(&mut bytes, frame) {
        bytes.clear();
        // Writing into memory cannot fail.
        drop(write!(
            bytes,
            "{{\"message\":\"a log line could not be written: {error}\"}}"
        ));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(identity: &Identity) -> Line<'_> {
        let mut recorded = Recorded {
            message: "server starting on port 8080".to_owned(),
            ..Recorded::default()
        };
        recorded.fields.set("mode", "release".into());
        recorded.fields.set("port", "8080".into());
        Line {
            identity,
            time: Timestamp::parse("2023-12-07T10:30:00.123456789Z").unwrap(),
            level: Level::INFO,
            target: "kube_node_manager",
            caller: Caller {
                file: "src/main.rs",
                line: 92,
            },
            recorded,
        }
    }

    fn identity() -> Identity {
        Identity {
            service: "kube-node-manager".to_owned(),
            version: "1.0.0".to_owned(),
            hostname: "pod-abc123".to_owned(),
        }
    }

    fn written(line: &Line<'_>, format: LogFormat) -> String {
        String::from_utf8(line.write(format)).unwrap()
    }

    #[test]
    fn a_json_line_has_the_promised_frame() {
        let identity = identity();
        assert_eq!(
            written(&line(&identity), LogFormat::Json),
            concat!(
                r#"{"timestamp":"2023-12-07T10:30:00.123456789Z","level":"INFO","service":"kube-node-manager","version":"1.0.0","#,
                r#""hostname":"pod-abc123","message":"server starting on port 8080","caller":"src/main.rs:92","#,
                r#""fields":{"mode":"release","port":"8080"}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn whole_seconds_have_nine_digits_too() {
        let identity = identity();
        let mut line = line(&identity);
        line.time = Timestamp::parse("2023-12-07T10:30:00Z").unwrap();
        assert!(written(&line, LogFormat::Json).contains("\"2023-12-07T10:30:00.000000000Z\""));
    }

    #[test]
    fn request_id_and_error_stand_beside_the_message() {
        let identity = identity();
        let mut line = line(&identity);
        line.recorded.request_id = Some("r-1".to_owned());
        line.recorded.error = Some("outer: inner".to_owned());
        let json: Value = serde_json::from_str(&written(&line, LogFormat::Json)).unwrap();
        assert_eq!(
            (&json["request_id"], &json["error"]),
            (&"r-1".into(), &"outer: inner".into())
        );
        assert_eq!(json["fields"].as_object().unwrap().len(), 2);
    }

    #[test]
    fn bunyan_reads_its_core_fields() {
        let identity = identity();
        let mut line = line(&identity);
        line.recorded.fields.set("level", 7.into());
        let json: Value = serde_json::from_str(&written(&line, LogFormat::Bunyan)).unwrap();
        assert_eq!(
            (&json["v"], &json["level"], &json["level_"]),
            (&0.into(), &30.into(), &7.into())
        );
        assert_eq!(
            (&json["name"], &json["msg"]),
            (&"kube-node-manager".into(), &"server starting on port 8080".into())
        );
        assert_eq!(
            (&json["hostname"], &json["port"]),
            (&"pod-abc123".into(), &"8080".into())
        );
        assert_eq!(
            (&json["time"], &json["pid"]),
            (&"2023-12-07T10:30:00.123Z".into(), &std::process::id().into())
        );
    }

    #[test]
    fn nothing_breaks_out_of_its_line() {
        let identity = identity();
        let mut line = line(&identity);
        line.recorded.message = "first\nsecond \u{1b}[31m".to_owned();
        line.recorded.fields.set("path", "a\nb".into());
        for format in LogFormat::ALL {
            let text = written(&line, format);
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }

    #[test]
    fn paths_of_the_compiling_machine_are_cut_off() {
        let cases = [
            ("src/main.rs", "src/main.rs"),
            (
                "/home/me/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/hyper-1.2.3/src/lib.rs",
                "hyper-1.2.3/src/lib.rs",
            ),
            (
                "/rustc/0123abc/library/core/src/option.rs",
                "library/core/src/option.rs",
            ),
            ("/home/me/project/src/main.rs", "main.rs"),
        ];
        for (file, expected) in cases {
            assert_eq!(relative(file), expected);
        }
    }
}
