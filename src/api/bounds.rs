//! What values a request may hold, as far as JSON Schema can say it: the second half of the description.
//!
//! The types say what is a number and what is text; here is what numbers, texts and fields together may be, in the place
//! of one attribute for each of a hundred fields, many of which have the same name and mean the same. `border` is what
//! enforces it. Requests that are made from the description show that both say the same (`tests/it/sdk.rs`).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::limits;

/// Completes the description.
pub(super) fn apply(document: &mut Value) {
    let sent = sent(document);
    let schemas = &mut document["components"]["schemas"];
    let of_fields: Vec<_> = everywhere().into_iter().chain(all_fields()).collect();
    let of_parameters = parameters();
    for name in &sent {
        let fields = schemas[name].get_mut("properties").and_then(Value::as_object_mut);
        for (field, schema) in fields.into_iter().flatten() {
            let own = format!("{name}.{field}");
            for (of, bounds) in &of_fields {
                if of == field || *of == own {
                    merge(schema, bounds);
                }
            }
        }
    }
    for (name, bounds) in together() {
        merge(&mut schemas[name], &bounds);
    }
    for name in &sent {
        without_defaults(&mut schemas[name]);
    }
    alternatives(schemas);
    for operation in operations(document) {
        let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
        for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            let own = format!("{name} of {id}");
            for (of, bounds) in &of_parameters {
                // What a path of another server may be is no matter of ours.
                if (*of == name && id != "proxyToPort") || *of == own {
                    merge(&mut parameter["schema"], bounds);
                }
            }
        }
        // Whatever is asked, the daemon may be stopping, or the sandbox have no room for what does it.
        if let Some(known) = operation["responses"].as_object_mut() {
            known.entry("5XX").or_insert_with(of_ours);
        }
        match id.as_str() {
            // The user is the session's, and bash has variables of some names only.
            "runInSession" => {
                let body = &mut operation["requestBody"]["content"]["application/json"]["schema"];
                let mut own = nothing(&["user"]);
                own["properties"]["env"] = json!({"propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}});
                *body = json!({"allOf": [body.take(), own]});
            }
            // Nothing is an archive of nothing.
            "uploadArchive" => operation["requestBody"]["required"] = json!(false),
            _ => {}
        }
    }
}

fn of_ours() -> Value {
    let body = json!({"schema": {"$ref": "#/components/schemas/ErrorBody"}});
    json!({
        "description": "`SHUTTING_DOWN`, `SANDBOX_BUSY`, `FILES_UNAVAILABLE`, `INTERNAL`",
        "content": {"application/json": body},
    })
}

/// What must be there has no default: the one that comes from the code says only how it is parsed.
fn without_defaults(schema: &mut Value) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for name in required.iter().filter_map(Value::as_str) {
        if let Some(field) = schema["properties"].get_mut(name).and_then(Value::as_object_mut) {
            field.remove("default");
        }
    }
}

fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    paths.flat_map(|(_, methods)| {
        methods.as_object_mut().into_iter().flatten().map(|(_, operation)| operation)
    })
}

/// Names of the schemas that requests are made of.
fn sent(document: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let methods = document["paths"].as_object().into_iter().flatten();
    let operations = methods.flat_map(|(_, methods)| methods.as_object().into_iter().flatten());
    for (_, operation) in operations {
        collect(document, &operation["requestBody"], &mut found);
    }
    found
}

fn collect(document: &Value, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let name = fields.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
            if let Some(name) = name
                && found.insert(name.to_owned())
            {
                collect(document, &document["components"]["schemas"][name], found);
            }
            fields.values().for_each(|value| collect(document, value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(document, value, found)),
        _ => {}
    }
}

/// Puts bounds into a schema, over those that it has.
fn merge(schema: &mut Value, bounds: &Value) {
    match (schema, bounds) {
        (Value::Object(schema), Value::Object(bounds)) => {
            for (key, value) in bounds {
                merge(schema.entry(key).or_insert(Value::Null), value);
            }
        }
        (schema, bounds) => *schema = bounds.clone(),
    }
}

/// Characters that no line has.
const CONTROL: &str = r"\u0000-\u001f\u007f-\u009f";
/// Names of sandboxes, and of snapshots.
const SANDBOX: &str = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$";
/// Permissions, in octal.
const MODE: &str = "^0{0,2}[0-7]{1,3}$|^0?1[0-7]{3}$";
/// A host's name: what browsers take for an address is none.
const HOST: &str = r"([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{0,62}[A-Za-z_-]\.?";
/// The same with `*` in it, which alone is the first part only.
const NAMES: &str = r"([A-Za-z0-9_*-]{0,62}[A-Za-z_*-]|[A-Za-z0-9_*-]{1,63}\.(\*?[A-Za-z0-9_-][A-Za-z0-9_*-]{0,61}\.)*([A-Za-z0-9_-][A-Za-z0-9_*-]{0,61}[A-Za-z_*-]|[A-Za-z_-]))\.?";
const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";

fn within(least: u64, most: u64) -> Value {
    json!({"minimum": least, "maximum": most})
}

fn matching(pattern: impl AsRef<str>) -> Value {
    json!({"pattern": pattern.as_ref()})
}

fn longest(mut schema: Value, characters: usize) -> Value {
    schema["maxLength"] = json!(characters);
    schema
}

/// Text without NUL.
fn text() -> Value {
    matching(r"^[^\u0000]*$")
}

/// Text that is shown in lists.
fn line(bytes_max: usize) -> Value {
    longest(matching(format!("^[^{CONTROL}]+$")), bytes_max)
}

fn list(count: usize, mut of: Value) -> Value {
    of["type"] = json!("string");
    json!({"maxItems": count, "items": of})
}

fn user() -> Value {
    matching(format!("^[^{CONTROL}:]{{1,64}}(:[^{CONTROL}:]{{1,64}})?$"))
}

/// `[registry/]repository[:tag][@digest]`.
fn reference() -> Value {
    let part = "[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*";
    let label = "([A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])";
    let registry = format!(r"({label}(\.{label})*(:[0-9]+)?/)?");
    let tag = "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?";
    matching(format!("^{registry}{part}(/{part})*{tag}$"))
}

/// Of an image that is to come: `host` is this host's own files.
fn new_reference() -> Value {
    let mut reference = reference();
    reference["not"] = json!({"const": "host"});
    reference
}

/// A part of a path that is one name.
fn name() -> Value {
    json!({"pattern": "^[A-Za-z0-9._-]{1,255}$", "not": {"enum": [".", ".."]}})
}

/// A number that may be 0, for none, or at least so much.
fn none_or(least: &Value, most: u64) -> Value {
    json!({"maximum": most, "anyOf": [{"enum": [0, null]}, {"minimum": least}]})
}

/// Fields with the same bounds wherever they are sent.
fn everywhere() -> Vec<(&'static str, Value)> {
    let variables = json!({
        "propertyNames": {"type": "string", "pattern": r"^[^=\u0000]+$"},
        "additionalProperties": {"type": "string", "pattern": r"^[^\u0000]*$"},
    });
    let bytes = limits::LABEL_BYTES_MAX;
    let labels = json!({
        "maxProperties": limits::LABELS_MAX,
        "propertyNames": {"type": "string", "pattern": format!("^[^={CONTROL}]+$"), "maxLength": bytes},
        "additionalProperties": {"type": "string", "pattern": format!("^[^{CONTROL}]*$"), "maxLength": bytes},
    });
    let argv = json!({
        "minItems": 1,
        "prefixItems": [{"type": "string", "pattern": r"^[^\u0000]+$"}],
        "items": {"type": "string", "pattern": r"^[^\u0000]*$"},
    });
    vec![
        ("user", user()),
        ("env", variables.clone()),
        ("set", variables),
        ("argv", argv),
        ("labels", labels),
        ("shell", text()),
        ("wait_ms", within(0, limits::PORT_WAIT_MS_MAX)),
    ]
}

fn all_fields() -> Vec<(&'static str, Value)> {
    [of_sandboxes(), of_limits(), of_commands(), of_files(), of_repositories(), of_mounts(), of_network()]
        .concat()
}

fn of_sandboxes() -> Vec<(&'static str, Value)> {
    let reserved = ["www", "api", "admin", "root", "system", "cloudflare", "workers"];
    let snapshot = || matching(SANDBOX);
    let path = || line(limits::PATH_BYTES_MAX - 1);
    let mut ids = list(limits::FORKS_MAX, matching(SANDBOX));
    ids["uniqueItems"] = json!(true);
    vec![
        ("CreateSandbox.id", json!({"not": {"enum": reserved}})),
        ("CreateSandbox.image", reference()),
        ("CreateSandbox.snapshot", snapshot()),
        ("CreateSandbox.hostname", matching("^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$")),
        ("CreateSandbox.mounts", json!({"maxItems": limits::MOUNTS_MAX})),
        ("RestoreSandbox.snapshot", snapshot()),
        ("RestoreSandbox.path", path()),
        ("RollBackSandbox.snapshot", snapshot()),
        ("CreateSnapshot.name", line(limits::SNAPSHOT_NAME_BYTES_MAX)),
        ("CreateSnapshot.path", path()),
        ("CreateSnapshot.exclude", list(limits::EXCLUDES_MAX, line(limits::EXCLUDE_BYTES_MAX))),
        ("ForkSandbox.ids", ids),
        ("CommitSandbox.reference", new_reference()),
        ("ExposePort.port", within(1, 65_535)),
        ("ExposePort.name", line(limits::PORT_NAME_BYTES_MAX)),
    ]
}

fn of_limits() -> Vec<(&'static str, Value)> {
    let size = |least: u64| within(least, limits::SIZE_MAX);
    vec![
        ("ResourceLimits.memory_bytes", none_or(&json!(limits::MEMORY_BYTES_MIN), limits::SIZE_MAX)),
        ("ResourceLimits.swap_bytes", size(0)),
        ("ResourceLimits.pids", none_or(&json!(4), limits::PIDS_MAX)),
        ("ResourceLimits.cpus", none_or(&json!(0.05), limits::CPUS_MAX.into())),
        ("ResourceLimits.disk_bytes", size(1 << 20)),
        ("ResourceLimits.disk_files", size(16)),
        ("ResourceLimits.tmpfs_bytes", size(4096)),
        ("ResourceLimits.io_read_bytes_per_second", size(limits::IO_BYTES_MIN)),
        ("ResourceLimits.io_write_bytes_per_second", size(limits::IO_BYTES_MIN)),
        ("ResourceLimits.io_read_operations_per_second", size(limits::IO_OPERATIONS_MIN)),
        ("ResourceLimits.io_write_operations_per_second", size(limits::IO_OPERATIONS_MIN)),
        ("NetworkLimits.bytes_per_second", size(1024)),
    ]
}

fn of_commands() -> Vec<(&'static str, Value)> {
    let pattern = |kind: &str| {
        let mut schema = longest(matching(r"^[^\u0000]+$"), limits::WAIT_PATTERN_BYTES_MAX);
        if kind == "regex" {
            schema["format"] = json!(kind);
        }
        schema
    };
    vec![
        (
            "RunCommand.stdin_base64",
            matching("^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)?$"),
        ),
        ("RunCommand.cwd", longest(text(), limits::PATH_BYTES_MAX - 1)),
        ("RunCode.cwd", longest(text(), limits::PATH_BYTES_MAX - 1)),
        ("AnswerInput.value", matching(r"^[^\n]*$")),
        ("ChangeEnvironment.unset", list(limits::EXEC_STRINGS_MAX, matching(format!("^[^{CONTROL}]+$")))),
        ("OpenTerminal.session", matching("^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")),
        ("WaitForPort.port", within(1, 65_535)),
        ("WaitForHttp.path", longest(matching("^/[!-~]*$"), limits::PATH_BYTES_MAX)),
        ("WaitForLog.text", pattern("text")),
        ("WaitForLog.regex", pattern("regex")),
    ]
}

fn of_files() -> Vec<(&'static str, Value)> {
    let pattern = || json!({"maxLength": limits::PATTERN_BYTES_MAX});
    let mut regex = pattern();
    regex["format"] = json!("regex");
    vec![
        ("ChangeMode.mode", matching(MODE)),
        ("MakeDirectory.mode", matching(MODE)),
        ("ChangeOwner.owner", user()),
        ("SearchFiles.limit", within(1, limits::PAGE_MAX.into())),
        ("SearchFiles.text", pattern()),
        ("SearchFiles.regex", regex),
        ("SearchFiles.glob", pattern()),
    ]
}

/// Repositories and images.
fn of_repositories() -> Vec<(&'static str, Value)> {
    let rest = format!(r"[^{CONTROL}\s]*");
    let host = r"([A-Za-z0-9._-]+@)?[A-Za-z0-9._\[\]][A-Za-z0-9._:\[\]-]*";
    // `HOST:PATH`, whose path begins with no more than one slash: otherwise it would be a scheme that there is not.
    let short =
        format!(r"[^{CONTROL}\s/:-][^{CONTROL}\s/:]*:([^{CONTROL}\s:/]{rest}|/([^{CONTROL}\s/]{rest})?)");
    let url = format!("^((https?|ssh|git)://{host}([/?#]{rest})?|(file://)?/{rest}|{short})$");
    let word = || line(1024);
    let secret = || line(limits::SECRET_BYTES_MAX);
    let part = "[a-z0-9._-]{1,32}";
    vec![
        ("CloneRepository.url", longest(matching(url), 2048)),
        ("CloneRepository.path", line(limits::PATH_BYTES_MAX)),
        ("CloneRepository.branch", line(limits::NAME_BYTES_MAX)),
        ("CloneRepository.username", word()),
        ("CloneRepository.password", secret()),
        ("CloneRepository.token", secret()),
        ("PullImage.reference", new_reference()),
        ("PullImage.platform", matching(format!("^{part}/{part}(/{part})?$"))),
        ("PullImage.username", word()),
        ("PullImage.password", secret()),
        ("PullImage.token", secret()),
        ("PushSandbox.reference", new_reference()),
        ("PushSandbox.username", word()),
        ("PushSandbox.password", secret()),
        ("PushSandbox.token", secret()),
        ("StoreSandbox.reference", new_reference()),
        ("LoadImage.reference", new_reference()),
    ]
}

fn of_mounts() -> Vec<(&'static str, Value)> {
    let key = || longest(matching("^[!-~]+$"), limits::CREDENTIAL_BYTES_MAX);
    let server = r"https?://[A-Za-z0-9._-]+(:[0-9]{1,4})?(/[A-Za-z0-9_/-]*)?";
    let endpoint = || longest(matching(format!(r"^({server}|file:///+[^/\u0000].*)$")), 4096);
    vec![
        ("AddMount.path", longest(matching(r"^/+[^/\u0000]"), limits::PATH_BYTES_MAX - 1)),
        ("AddMount.endpoint", endpoint()),
        ("AddMount.bucket", name()),
        ("AddMount.region", name()),
        ("BucketObject.endpoint", endpoint()),
        ("BucketObject.bucket", name()),
        ("BucketObject.region", name()),
        ("BucketObject.key", line(limits::KEY_BYTES_MAX)),
        ("AddMount.prefix", longest(text(), limits::KEY_BYTES_MAX)),
        ("AddMount.cache_bytes", within(16 << 20, limits::BUCKET_CACHE_BYTES_MAX)),
        ("AddMount.attribute_ttl_ms", within(0, limits::TIMEOUT_MS_MAX)),
        ("MountCredentials.profile", name()),
        ("MountCredentials.access_key_id", key()),
        ("MountCredentials.secret_access_key", key()),
        ("MountCredentials.session_token", key()),
    ]
}

/// An address of IPv6 (RFC 4291 §2.2), but for those that end as addresses of IPv4 do.
fn ipv6() -> String {
    let hex = "[0-9a-fA-F]{1,4}";
    // So many groups before `::` at most, and so many behind it.
    let cut = (1..7).map(|before| format!("({hex}:){{1,{before}}}(:{hex}){{1,{}}}", 7 - before));
    let whole = [format!("({hex}:){{7}}{hex}"), format!("({hex}:){{1,7}}:"), format!(":((:{hex}){{1,7}}|:)")];
    whole.into_iter().chain(cut).collect::<Vec<_>>().join("|")
}

fn of_network() -> Vec<(&'static str, Value)> {
    let bits = "([0-9]|[12][0-9]|3[0-2])";
    let port = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
    let ports = format!("(:{port}(-{port})?(,{port}(-{port})?)*)?");
    let six = format!("({})(/([0-9]|[1-9][0-9]|1[01][0-9]|12[0-8]))?", ipv6());
    let whom = format!(r"(\*|{NAMES}|({OCTET}\.){{3}}{OCTET}(/{bits})?|\[{six}\]){ports}|{six}");
    let rule = longest(matching(format!("^((tcp|https?)://)?({whom})$")), limits::RULE_BYTES_MAX);
    let lower = HOST.replace("A-Z", "").replace(r"\.?", "");
    let rules = list(limits::POLICY_RULES_MAX, rule);
    let names = longest(matching(format!(r"^(\*|(\*\.)?{lower})$")), 253);
    let value = |pattern: &str| longest(matching(pattern), limits::CREDENTIAL_BYTES_MAX);
    let word = || matching("^[A-Za-z0-9-]{1,64}$");
    vec![
        ("NetworkPolicy.allow", rules.clone()),
        ("NetworkPolicy.deny", rules),
        ("NetworkPolicy.intercept", list(limits::EGRESS_HOSTS_MAX, names)),
        ("NetworkPolicy.hosts", json!({"maxItems": limits::EGRESS_HOSTS_MAX})),
        ("NetworkHost.host", longest(matching(format!("^{HOST}$")), 253)),
        ("NetworkHost.handler", matching("^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")),
        ("HeaderCredential.name", matching("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$")),
        ("HeaderCredential.value", value(r"^[\t -~]*[!-~][\t -~]*$")),
        ("BasicCredential.username", value(r"^[\t -9;-~]*$")),
        ("BasicCredential.password", value(r"^[\t -~]*$")),
        ("AwsCredential.region", word()),
        ("AwsCredential.service", word()),
        ("AwsCredential.access_key_id", value(r"^[\t -~]*$")),
        ("AwsCredential.secret_access_key", value(r"^[\t -~]*$")),
        ("AwsCredential.session_token", value(r"^[\t -~]*$")),
    ]
}

/// That these fields are absent, or null.
fn nothing(fields: &[&str]) -> Value {
    let fields: Map<_, _> =
        fields.iter().map(|field| ((*field).to_owned(), json!({"type": "null"}))).collect();
    json!({"properties": fields})
}

/// That these fields are there, and those are not.
fn given(these: &[&str], but: &[&str]) -> Value {
    let mut schema = nothing(but);
    schema["required"] = json!(these);
    for field in these {
        schema["properties"][*field] = json!({"not": {"type": "null"}});
    }
    schema
}

/// What fields of one body may be together.
fn together() -> Vec<(&'static str, Value)> {
    let either =
        |one: &str, other: &str| json!({"oneOf": [given(&[one], &[other]), given(&[other], &[one])]});
    let no = json!({"const": false});
    let command = either("argv", "shell");
    let one_input = json!({"anyOf": [nothing(&["stdin"]), nothing(&["stdin_base64"])]});
    let whole = given(&["path"], &[]);
    let all = json!({"properties": {"gitignore": no, "exclude": {"maxItems": 0}}});
    let mut answer = given(&["value"], &[]);
    answer["properties"]["eof"] = no.clone();
    let mut eof = given(&["eof"], &["value"]);
    eof["properties"]["eof"] = json!({"const": true});
    vec![
        ("RunCommand", json!({"allOf": [command, one_input]})),
        ("StartProcess", either("argv", "shell")),
        ("StartupProcess", either("argv", "shell")),
        ("SearchFiles", either("text", "regex")),
        ("WaitForLog", either("text", "regex")),
        ("AnswerInput", json!({"oneOf": [answer, eof]})),
        ("CreateSnapshot", json!({"anyOf": [whole, all]})),
        (
            "CreateSandbox",
            json!({"anyOf": [nothing(&["snapshot"]), {"properties": {"image": {"const": "host"}}}]}),
        ),
        ("CloneRepository", clone_logins()),
        ("PullImage", registry_logins()),
        ("PushSandbox", registry_logins()),
        ("MountCredentials", mount_credentials()),
        ("AddMount", {
            let own = ["file_mode", "dir_mode", "cache_bytes", "attribute_ttl_ms"];
            let mut mounts = buckets(&own);
            mounts["oneOf"][0]["properties"]["conditional_writes"] = json!({"const": false});
            mounts
        }),
        ("BucketObject", buckets(&[])),
        ("NetworkHost", hosts()),
        (
            "NetworkPolicy",
            json!({"anyOf": [
                {"properties": {"mode": {"not": {"const": "none"}}}},
                {"properties": {"allow": {"maxItems": 0}, "hosts": {"maxItems": 0}, "intercept": {"maxItems": 0}}},
            ]}),
        ),
        (
            "BasicCredential",
            json!({"anyOf": [nothing(&["username", "password"]), given(&["username", "password"], &[])]}),
        ),
        (
            "AwsCredential",
            json!({"required": ["region", "service"], "anyOf": [
                nothing(&["access_key_id", "secret_access_key", "session_token"]),
                given(&["access_key_id", "secret_access_key"], &[]),
            ]}),
        ),
        (
            "HeaderCredential",
            json!({"required": ["name"], "not": {"properties": {"name": {"enum": [
            "host", "content-length", "transfer-encoding", "connection", "upgrade", "te",
        ]}}, "required": ["name"]}}),
        ),
    ]
}

/// Only hosts that are spoken to by HTTP are shown a name and a password; and the clone is called something.
fn registry_logins() -> Value {
    json!({"required": ["reference"], "anyOf": [
        nothing(&["username", "password", "token"]),
        given(&["username", "password"], &["token"]),
        given(&["token"], &["username", "password"]),
    ]})
}

fn clone_logins() -> Value {
    let by_http = |mut login: Value| {
        login["properties"]["url"] = json!({"pattern": "^[hH][tT][tT][pP][sS]?://"});
        login
    };
    let logins = json!({"anyOf": [
        nothing(&["username", "password", "token"]),
        by_http(given(&["username", "password"], &["token"])),
        by_http(given(&["token"], &["password"])),
    ]});
    let named = r"^([A-Za-z]+://[^/?#]+/|[^:/]+:|/)([^?#]*[/:])?[A-Za-z0-9_~-][^/:?#]*/*$";
    let names = json!({"anyOf": [given(&["path"], &[]), {"properties": {"url": {"pattern": named}}}]});
    json!({"required": ["url"], "allOf": [logins, names]})
}

fn mount_credentials() -> Value {
    let key = ["access_key_id", "secret_access_key", "session_token"];
    let flags = |mut schema: Value, environment: bool, anonymous: bool| {
        schema["properties"]["environment"] = json!({"const": environment});
        schema["properties"]["anonymous"] = json!({"const": anonymous});
        schema
    };
    let mut lent = flags(nothing(&[&key[..], &["profile"]].concat()), true, false);
    lent["required"] = json!(["environment"]);
    let mut nobody = flags(nothing(&[&key[..], &["profile"]].concat()), false, true);
    nobody["required"] = json!(["anonymous"]);
    json!({"oneOf": [
        flags(given(&key[..2], &["profile"]), false, false),
        flags(given(&["profile"], &key), false, false),
        lent,
        nobody,
    ]})
}

/// A bucket, or a directory.
fn buckets(own: &[&str]) -> Value {
    let for_buckets = ["region", "addressing", "credentials"];
    let mut directory = given(&["endpoint"], &[&for_buckets, own].concat());
    directory["properties"]["endpoint"] = json!({"type": "string", "pattern": "^file://"});
    let mut bucket = given(&["bucket"], &[]);
    bucket["properties"]["endpoint"] = json!({"not": {"type": "string", "pattern": "^file://"}});
    json!({"oneOf": [directory, bucket]})
}

/// One thing is done with a host's requests.
fn hosts() -> Value {
    let credentials = ["header", "basic", "aws"];
    let mut ways: Vec<Value> = credentials
        .iter()
        .map(|one| {
            let others: Vec<&str> = credentials.iter().filter(|other| *other != one).copied().collect();
            given(&[one], &[&others[..], &["handler"]].concat())
        })
        .collect();
    let mut handler = given(&["handler"], &credentials);
    handler["properties"]["upgrade"] = json!({"const": false});
    let mut upgrade = given(&["upgrade"], &[&credentials[..], &["handler"]].concat());
    upgrade["properties"]["upgrade"] = json!({"const": true});
    ways.extend([handler, upgrade]);
    json!({"required": ["host"], "oneOf": ways})
}

/// Schemas that are one of several themselves.
fn alternatives(schemas: &mut Value) {
    let any_case = |word: &str| -> String {
        word.chars().map(|letter| format!("[{letter}{}]", letter.to_ascii_lowercase())).collect()
    };
    let names: Vec<String> = super::signals::NAMES.iter().map(|name| any_case(&name[3..])).collect();
    let (sig, names) = (any_case("SIG"), names.join("|"));
    let signal = &mut schemas["SignalName"]["oneOf"];
    merge(&mut signal[0], &within(1, 64));
    merge(&mut signal[1], &matching(format!("^([1-9]|[1-5][0-9]|6[0-4]|({sig})?({names}))$")));
    let path = &mut schemas["PathText"]["oneOf"];
    merge(&mut path[0], &longest(matching(r"^[^\u0000]+$"), limits::PATH_BYTES_MAX - 1));
    path[1]["additionalProperties"] = json!(false);
    let base64 = "^([A-Za-z0-9+/]{4})+$|^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)$";
    merge(&mut path[1]["properties"]["base64"], &matching(base64));
}

/// Parameters of queries and paths: everywhere, or `NAME of OPERATION`.
fn parameters() -> Vec<(&'static str, Value)> {
    let globs = || json!({"maxItems": limits::WATCH_GLOBS_MAX});
    let label =
        longest(matching(format!("^[^={CONTROL}]+(=[^{CONTROL}]*)?$")), 2 * limits::LABEL_BYTES_MAX + 1);
    vec![
        ("user", user()),
        ("owner", user()),
        ("path", longest(matching(r"^[^\u0000]+$"), limits::PATH_BYTES_MAX - 1)),
        ("mode of writeFile", matching(MODE)),
        ("reference", reference()),
        ("reference of importImage", new_reference()),
        ("reference of exportSandbox", new_reference()),
        ("path of uploadSnapshot", line(limits::PATH_BYTES_MAX - 1)),
        ("name of uploadSnapshot", line(limits::SNAPSHOT_NAME_BYTES_MAX)),
        ("ttl_ms of uploadSnapshot", within(1, limits::LIFECYCLE_MS_MAX)),
        ("port", within(1, 65_535)),
        ("wait_ms", within(0, limits::PORT_WAIT_MS_MAX)),
        ("interval_ms", within(100, 3_600_000)),
        ("timeout_ms of unmount", within(0, limits::UNMOUNT_MS_MAX)),
        ("limit of listAudit", within(1, 1000)),
        ("limit of listEvents", within(1, 1000)),
        ("limit of listFiles", within(1, limits::PAGE_MAX.into())),
        ("limit of listNetworkEvents", within(1, 80)),
        ("sandbox of listAudit", matching(SANDBOX)),
        ("sandbox of listEvents", list(limits::QUERY_PAIRS_MAX - 8, matching(SANDBOX))),
        ("label", list(limits::QUERY_PAIRS_MAX - 8, label)),
        ("stream", json!({"enum": ["stdout", "stderr", "both"]})),
        ("include", globs()),
        ("exclude", globs()),
        ("cursor of listFiles", matching("^([A-Za-z0-9_-]{4})+$")),
        ("cursor of filesChanged", matching("^[0-9a-f]{1,16}-[0-9a-f]{1,16}$")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_bounded_is_there() {
        let mut document = super::super::openapi();
        let sent = sent(&document);
        let schemas = document["components"]["schemas"].clone();
        let fields = |name: &str| schemas[name]["properties"].as_object().cloned().unwrap_or_default();
        for (of, _) in all_fields() {
            let (name, field) = of.split_once('.').expect("SCHEMA.FIELD");
            assert!(sent.contains(name) && fields(name).contains_key(field), "{of}");
        }
        for (of, _) in everywhere() {
            assert!(sent.iter().any(|name| fields(name).contains_key(of)), "{of}");
        }
        for (name, _) in together() {
            assert!(sent.contains(name), "{name}");
        }
        let mut named = BTreeSet::new();
        for operation in operations(&mut document) {
            let id = operation["operationId"].as_str().expect("an id");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().expect("a name");
                named.extend([name.to_owned(), format!("{name} of {id}")]);
            }
        }
        for (of, _) in parameters() {
            assert!(named.contains(of), "{of}");
        }
    }

    #[test]
    fn bounds_go_over_what_is_there() {
        let mut schema = json!({"type": ["string", "null"], "items": {"type": "string"}});
        merge(&mut schema, &json!({"maxLength": 5, "items": {"pattern": "a"}}));
        let both =
            json!({"type": ["string", "null"], "maxLength": 5, "items": {"type": "string", "pattern": "a"}});
        assert_eq!(schema, both);
    }
}
