//! Renders chats with the model's own Jinja template, in Hugging Face's dialect.
//!
//! Input: messages (and tools) as JSON. Output: the text that the model was trained on. The
//! dialect: blocks are trimmed, Python's string and dict methods, `raise_exception`,
//! `strftime_now`, `tojson` as Python's `json.dumps` prints it, `break` and `continue`,
//! `namespace`, `generation` blocks (whose text is kept), True/False/None printed as Python does.
//! Not here: encoding the text (templates write their special tokens themselves, so it is encoded
//! without adding any).

use crate::{Error, Result};
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, ErrorKind, Output, State};
use serde::Serialize;
use std::collections::BTreeMap;

/// A message of a chat as the faces write it; templates also take what JSON lines hold besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    pub role: String,
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: &str, content: &str) -> Message {
        Message {
            role: role.into(),
            content: content.into(),
        }
    }
}

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    special: BTreeMap<String, String>,
}

const NAME: &str = "chat";

impl ChatTemplate {
    /// Compiles a template; `special` are the strings that it may name: `bos_token`, `eos_token`…
    pub fn new(source: &str, special: &BTreeMap<String, String>) -> Result<ChatTemplate> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(print_as_python);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        environment.add_filter("string", python_str);
        environment
            .add_template_owned(NAME, keep_generation_blocks(source))
            .map_err(|e| Error::Input(format!("the chat template cannot be read: {}", told(&e))))?;
        Ok(ChatTemplate {
            environment,
            special: special.clone(),
        })
    }

    /// Renders a chat. `messages` and `tools` are JSON values or anything that serialises alike.
    pub fn render(
        &self,
        messages: impl Serialize,
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let mut variables: BTreeMap<&str, Value> = self
            .special
            .iter()
            .map(|(k, v)| (k.as_str(), Value::from(v.as_str())))
            .collect();
        variables.insert("messages", Value::from_serialize(messages));
        variables.insert(
            "tools",
            tools.map_or(Value::from(()), Value::from_serialize),
        );
        variables.insert("documents", Value::from(()));
        variables.insert("add_generation_prompt", Value::from(add_generation_prompt));
        let wrong = |e: minijinja::Error| Error::Input(format!("the chat template: {}", told(&e)));
        let template = self.environment.get_template(NAME).map_err(wrong)?;
        template.render(Value::from_iter(variables)).map_err(wrong)
    }
}

/// The message of an error and of what caused it.
fn told(error: &minijinja::Error) -> String {
    let mut text = match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    };
    if let Some(line) = error.line()
        && error.kind() != ErrorKind::InvalidOperation
    {
        text.push_str(&format!(" (line {line})"));
    }
    text
}

/// `{% generation %}` marks text for training; here it is a block that is always shown.
fn keep_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let Some(end) = rest[at..].find("%}") else {
            break;
        };
        let tag = &rest[at + 2..at + end];
        let word = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        out.push_str(&rest[..at]);
        match word {
            "generation" => out.push_str(&format!("{{%{}%}}", tag.replace(word, "if true"))),
            "endgeneration" => out.push_str(&format!("{{%{}%}}", tag.replace(word, "endif"))),
            _ => out.push_str(&rest[at..at + end + 2]),
        }
        rest = &rest[at + end + 2..];
    }
    out.push_str(rest);
    out
}

fn raise_exception(message: String) -> std::result::Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// The local time, formatted by the C library's `strftime`.
fn strftime_now(format: String) -> std::result::Result<String, minijinja::Error> {
    let wrong = |m: &'static str| minijinja::Error::new(ErrorKind::InvalidOperation, m);
    // A mark in front, so that an empty result is not taken for an overflow.
    let format = std::ffi::CString::new(format!("_{format}"))
        .map_err(|_| wrong("strftime_now: the format holds a zero byte"))?;
    let mut buffer = [0u8; 1024];
    // SAFETY: the buffers outlive the calls, which write within the given sizes.
    let written = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        libc::localtime_r(&now, &mut parts);
        libc::strftime(
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            format.as_ptr(),
            &parts,
        )
    };
    if written == 0 {
        return Err(wrong("strftime_now: the result is too long"));
    }
    Ok(String::from_utf8_lossy(&buffer[1..written]).into_owned())
}

/// `{{ value }}`: text as it is, everything else as Python's `str` prints it.
fn print_as_python(
    out: &mut Output,
    _state: &State,
    value: &Value,
) -> std::result::Result<(), minijinja::Error> {
    match value.as_str() {
        Some(s) => out.write_str(s),
        None => out.write_str(&python_str(value.clone())?),
    }
    .map_err(minijinja::Error::from)
}

fn python_str(value: Value) -> std::result::Result<String, minijinja::Error> {
    let mut text = String::new();
    match value.as_str() {
        Some(s) => text.push_str(s),
        None => python_repr(&mut text, &value)?,
    }
    Ok(text)
}

fn python_repr(out: &mut String, value: &Value) -> std::result::Result<(), minijinja::Error> {
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => {
            let s = value.as_str().unwrap_or_default();
            let quote = if s.contains('\'') && !s.contains('"') {
                '"'
            } else {
                '\''
            };
            out.push(quote);
            for c in s.chars() {
                match c {
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    '\t' => out.push_str("\\t"),
                    '\\' => out.push_str("\\\\"),
                    c if c == quote => {
                        out.push('\\');
                        out.push(c);
                    }
                    c => out.push(c),
                }
            }
            out.push(quote);
        }
        ValueKind::Seq => {
            out.push('[');
            for (i, item) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                python_repr(out, &item)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                python_repr(out, &key)?;
                out.push_str(": ");
                python_repr(out, &value.get_item(&key)?)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// How `json.dumps` lays out what it prints.
struct Layout {
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    sorted: bool,
}

/// Hugging Face's `tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
fn tojson(
    value: Value,
    args: Rest<Value>,
    options: Kwargs,
) -> std::result::Result<Value, minijinja::Error> {
    let argument = |index: usize, name: &str| -> std::result::Result<_, minijinja::Error> {
        let named: Option<Value> = options.get(name)?;
        let given = args.get(index).cloned().or(named);
        Ok(given.filter(|v| !v.is_none() && !v.is_undefined()))
    };
    let ascii = argument(0, "ensure_ascii")?.is_some_and(|v| v.is_true());
    let indent = argument(1, "indent")?.map(|v| match v.as_str() {
        Some(s) => s.to_owned(),
        None => " ".repeat(v.as_usize().unwrap_or(0).min(64)),
    });
    let separators = argument(2, "separators")?;
    let sorted = argument(3, "sort_keys")?.is_some_and(|v| v.is_true());
    options.assert_all_used()?;
    let separator = |index: usize| -> std::result::Result<Option<String>, minijinja::Error> {
        match &separators {
            Some(pair) => Ok(pair.get_item_by_index(index)?.as_str().map(str::to_owned)),
            None => Ok(None),
        }
    };
    let item = separator(0)?.unwrap_or_else(|| if indent.is_some() { "," } else { ", " }.into());
    let key = separator(1)?.unwrap_or_else(|| ": ".into());
    let layout = Layout {
        indent,
        item,
        key,
        ascii,
        sorted,
    };
    let json = serde_json::to_value(&value).map_err(|e| {
        minijinja::Error::new(
            ErrorKind::BadSerialization,
            "tojson cannot print this value",
        )
        .with_source(e)
    })?;
    let mut out = String::new();
    dump(&mut out, &json, &layout, 0);
    Ok(Value::from_safe_string(out))
}

fn dump(out: &mut String, value: &serde_json::Value, layout: &Layout, depth: usize) {
    use serde_json::Value as Json;
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = &layout.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    };
    match value {
        Json::String(s) => dump_string(out, s, layout.ascii),
        Json::Array(items) if items.is_empty() => out.push_str("[]"),
        Json::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { &layout.item } else { "" });
                line(out, depth + 1);
                dump(out, item, layout, depth + 1);
            }
            line(out, depth);
            out.push(']');
        }
        Json::Object(map) if map.is_empty() => out.push_str("{}"),
        Json::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            if layout.sorted {
                entries.sort_by_key(|(k, _)| k.as_str());
            }
            out.push('{');
            for (i, (key, item)) in entries.into_iter().enumerate() {
                out.push_str(if i > 0 { &layout.item } else { "" });
                line(out, depth + 1);
                dump_string(out, key, layout.ascii);
                out.push_str(&layout.key);
                dump(out, item, layout, depth + 1);
            }
            line(out, depth);
            out.push('}');
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => out.push_str(&value.to_string()),
    }
}

fn dump_string(out: &mut String, text: &str, ascii: bool) {
    let quoted = serde_json::Value::from(text).to_string();
    if !ascii {
        out.push_str(&quoted);
        return;
    }
    for c in quoted.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            let mut units = [0u16; 2];
            c.encode_utf16(&mut units)
                .iter()
                .for_each(|u| out.push_str(&format!("\\u{u:04x}")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, messages: serde_json::Value) -> Result<String> {
        let special = BTreeMap::from([("bos_token".to_string(), "<s>".to_string())]);
        ChatTemplate::new(source, &special)?.render(
            messages,
            Some(&json!([{"b": 1, "a": "é'"}])),
            true,
        )
    }

    fn check(source: &str, expected: &str) {
        let messages =
            json!([{"role": "user", "content": " Hi "}, {"role": "x", "content": ["a"]}]);
        assert_eq!(render(source, messages).unwrap(), expected, "{source}");
    }

    #[test]
    fn the_dialect_is_spoken() {
        check("{{ bos_token }}{{ messages[0].content.strip() }}", "<s>Hi");
        check("{% if true %}\n  x\n  {% endif %}\ny", "  x\ny");
        check("{{ tools | tojson }}", r#"[{"b": 1, "a": "é'"}]"#);
        check(
            "{{ tools | tojson(ensure_ascii=true) }}",
            r#"[{"b": 1, "a": "\u00e9'"}]"#,
        );
        check(
            "{{ {'k': [1, {}]} | tojson(indent=2) }}",
            "{\n  \"k\": [\n    1,\n    {}\n  ]\n}",
        );
        check(
            "{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=true) }}",
            r#"{"a":2,"b":1}"#,
        );
        check("{{ '<&>' | tojson }}", r#""<&>""#);
        check(
            "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
            "user",
        );
        check(
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "2",
        );
        check("a{%- generation -%} b {%- endgeneration %}c", "abc");
        check(
            "{{ true }} {{ none }} {{ messages[1].content }} {{ 1.0 }}",
            "True None ['a'] 1.0",
        );
        check("{{ messages[1:][0].role }}{{ messages[-1]['role'] }}", "xx");
        check("{{ add_generation_prompt }}{{ undefined_thing }}", "True");
        check(
            "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}",
            "role=user;content= Hi ;",
        );
        check("{{ strftime_now('%%') }}", "%");
        check(
            "{% for m in messages[::-1] %}{{ m.role }};{% endfor %}",
            "x;user;",
        );
        check("{{ 'a</t>\nb'.split('</t>')[-1].lstrip('\n') }}", "b");
        check(
            "{% macro f(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}",
            "12",
        );
        check(
            "{% for m in messages | rejectattr('role', 'equalto', 'x') %}{{ m.role }}{% endfor %}",
            "user",
        );
        check(
            "{{ messages | map(attribute='role') | join(',') }}",
            "user,x",
        );
        check(
            "{{ messages | selectattr('role', 'in', ['x']) | list | length }}",
            "1",
        );
        check(
            "{% if messages[0].tool_calls %}n{% elif not messages[0].get('z') %}y{% endif %}",
            "y",
        );
        check(
            "{{ 'x' if messages[0].name is defined else 'y' }}{{ messages | length - 1 }}",
            "y1",
        );
        check(
            "{% set x = dict(a=1) %}{{ x.a }}{{ x | string }}",
            "1{'a': 1}",
        );
        check(
            "{{ 'Ab'.title() ~ 'x'.upper() ~ 1 }}{{ 'a-b'.replace('-', '+') }}",
            "AbX1a+b",
        );
        check(
            "{% if tools is not none and messages is iterable and messages[0] is mapping %}y{% endif %}",
            "y",
        );
        check(
            "{% if messages[1].content is string %}{% else %}{{ 'x' in 'xyz' }}{% endif %}",
            "True",
        );
    }

    #[test]
    fn exceptions_are_told() {
        let e = render("{{ raise_exception('no such role') }}", json!([])).unwrap_err();
        assert_eq!(e.exit_code(), 2);
        assert!(e.to_string().ends_with("no such role"), "{e}");
        assert!(render("{% if %}", json!([])).is_err());
    }
}
