//! Loading settings: every error with its line, layers, the reference.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;

crate::settings! {
    /// Settings of the daemon in these tests.
    pub(crate) struct Example {
        /// Where clients connect.
        pub listen: Vec<ListenAddress> = vec![ListenAddress::local(7777)],
        /// Something hidden.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub password: Option<Secret> = None,
        pub greylisting: Greylisting = Greylisting::default(),
        pub log: LogSettings = LogSettings::default(),
        pub metrics: MetricsSettings = MetricsSettings::default(),
        pub process: ProcessSettings = ProcessSettings::default(),
        pub limits: LimitSettings = LimitSettings::default(),
    }
}

crate::settings! {
    /// How unknown senders are delayed.
    pub(crate) struct Greylisting {
        /// How long a new sender waits.
        pub block: Interval = Interval::seconds(900),
        /// How long a sender stays known.
        pub keep: Interval = Interval::seconds(86_400),
        /// Networks that never wait.
        pub exempt: Vec<String> = Vec::new(),
    }
}

impl DaemonSettings for Example {
    fn listeners(&self) -> Vec<ListenerSpec> {
        self.listen.iter().map(|address| ListenerSpec { role: "echo", address: address.clone() }).collect()
    }

    fn frame(&self) -> FrameSettings<'_> {
        FrameSettings { log: &self.log, metrics: &self.metrics, process: &self.process, limits: &self.limits }
    }

    fn check(&self, findings: &mut Findings) {
        if self.greylisting.block >= self.greylisting.keep {
            findings.error("greylisting.block", "must be shorter than greylisting.keep", "write \"15m\"");
        }
    }

    fn describe() -> SectionDoc {
        Self::document()
    }
}

/// A folder with an `example.toml`.
struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn new(text: &str) -> Folder {
        let folder = Folder { folder: tempfile::tempdir().unwrap() };
        folder.write("example.toml", text);
        folder
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        path
    }

    fn main(&self) -> PathBuf {
        self.folder.path().join("example.toml")
    }

    fn load(&self, environment: &[(&str, &str)]) -> Result<Loaded<Example>, SettingsError> {
        let environment: Vec<_> = environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        load_from(Some(&self.main()), "example", &environment)
    }

    /// The findings of a failing load, without the folder's name.
    fn errors(&self, environment: &[(&str, &str)]) -> String {
        match self.load(environment) {
            Err(SettingsError::Invalid(findings)) => {
                findings.to_string().replace(&format!("{}/", self.folder.path().display()), "")
            }
            other => panic!("not refused: {other:?}"),
        }
    }
}

#[test]
fn empty_and_missing_files_are_the_defaults() {
    let folder = Folder::new("");
    let loaded = folder.load(&[]).unwrap();
    assert_eq!(loaded.settings.listen, [ListenAddress::local(7777)]);
    assert_eq!(loaded.settings.limits.max_connections, 1000);
    assert!(loaded.findings.is_empty());
    let absent = load_from::<Example>(None, "no-such-daemon-here", &[]).unwrap();
    assert!(absent.files.is_empty());
    let named = load_from::<Example>(Some(Path::new("/nonexistent/x.toml")), "example", &[]).unwrap_err();
    assert_eq!(named.exit_code(), 66);
}

#[test]
fn every_problem_is_reported_with_its_line() {
    let folder = Folder::new(
        "listen = [\"127.0.0.1:7777\",\n  \"localhost:1\"]\n\
         colour = 1\n\
         \n\
         [limits]\n\
         max_conections = 5\n\
         idle_timeout = \"5 parsecs\"\n\
         grace = -1\n\
         [log]\n\
         level = \"inof\"\n\
         [greylisting]\n\
         block = \"2d\"\n",
    );
    let errors = folder.errors(&[]);
    for expected in [
        "example.toml:2: error: listen: \"localhost:1\" is no listen address: write \"127.0.0.1:7777\"",
        "example.toml:3: error: colour: unknown key \"colour\" (accepted: listen, password, greylisting, log",
        "example.toml:6: error: limits.max_conections: unknown key \"max_conections\" (did you mean \"max_connections\"?",
        "example.toml:7: error: limits.idle_timeout: \"5 parsecs\" is no time",
        "example.toml:8: error: limits.grace: invalid value",
        "example.toml:10: error: log.level: unknown value \"inof\" (did you mean \"info\"? accepted: error, warn, info",
        "example.toml:12: error: greylisting.block: must be shorter than greylisting.keep (write \"15m\")",
    ] {
        assert!(errors.lines().any(|line| line.starts_with(expected)), "{expected}\nis missing in\n{errors}");
    }
    assert_eq!(errors.lines().count(), 7, "{errors}");
}

#[test]
fn syntax_errors_have_lines_too() {
    let folder = Folder::new("[log]\nlevel = \"info\nstyle = \"json\"\n");
    let errors = folder.errors(&[]);
    assert!(errors.starts_with("example.toml:2: error: "), "{errors}");
    let folder = Folder::new("[log]\nlevel = \"info\"\nlevel = \"warn\"\n");
    let errors = folder.errors(&[]);
    assert!(errors.starts_with("example.toml:3: error: duplicate key"), "{errors}");
    let folder = Folder::new("");
    std::fs::write(folder.main(), b"[log]\n# \xff\n").unwrap();
    assert_eq!(folder.errors(&[]), "example.toml:2: error: is not UTF-8 text");
}

#[test]
fn fragments_apply_in_byte_order_and_the_environment_last() {
    let folder = Folder::new("[limits]\nmax_connections = 1\ngrace = \"1s\"\n[log]\nlevel = \"warn\"\n");
    folder.write("example.d/20-b.toml", "[limits]\nmax_connections = 20\n");
    folder.write("example.d/10-a.toml", "[limits]\nmax_connections = 10\nidle_timeout = \"10s\"\n");
    folder.write("example.d/30-not-read.conf", "nonsense");
    let settings = folder.load(&[]).unwrap().settings;
    assert_eq!(settings.limits.max_connections, 20);
    assert_eq!(settings.limits.idle_timeout, Interval::seconds(10));
    assert_eq!(settings.limits.grace, Interval::seconds(1));
    assert_eq!(settings.log.level, LogLevel::Warn);

    let environment = [
        ("OUTRIDER_EXAMPLE_LIMITS_MAX_CONNECTIONS", "30"),
        ("OUTRIDER_EXAMPLE_LISTEN", "127.0.0.1:1, [::1]:2"),
        ("OUTRIDER_EXAMPLE_LOG_TAG", "42"),
        ("OUTRIDER_OTHER_LOG_LEVEL", "nonsense for somebody else"),
    ];
    let settings = folder.load(&environment).unwrap().settings;
    assert_eq!(settings.limits.max_connections, 30);
    assert_eq!(settings.listen.len(), 2);
    assert_eq!(settings.log.tag.as_deref(), Some("42"));

    let errors =
        folder.errors(&[("OUTRIDER_EXAMPLE_LOG_LEVLE", "x"), ("OUTRIDER_EXAMPLE_LIMITS_GRACE", "soon")]);
    assert!(
        errors.contains(
            "$OUTRIDER_EXAMPLE_LOG_LEVLE: error: names no setting (did you mean OUTRIDER_EXAMPLE_LOG_LEVEL?)"
        ),
        "{errors}"
    );
    assert!(errors.contains("$OUTRIDER_EXAMPLE_LIMITS_GRACE: error: limits.grace: "), "{errors}");

    folder.write("example.d/40-bad.toml", "\n\n[limits]\ngracee = 1\n");
    assert!(folder.errors(&[]).starts_with("example.d/40-bad.toml:4: error: limits.gracee: unknown key"));
}

#[test]
fn secrets_come_from_files_and_are_hidden() {
    let folder = Folder::new("");
    let secret = folder.write("secret", "hush\n");
    folder.write("example.toml", &format!("password_file = {:?}\n", secret));
    let loaded = folder.load(&[]).unwrap();
    assert_eq!(loaded.settings.password.as_ref().unwrap().expose(), "hush");
    assert!(!toml::to_string(&loaded.settings).unwrap().contains("hush"));
    assert!(loaded.findings.is_empty());

    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o644)).unwrap();
    let errors = folder.errors(&[]);
    assert!(errors.starts_with("example.toml:1: error: password: the secret in "), "{errors}");

    // A secret in the file itself is tolerated with a warning if others may read the file.
    let main = folder.write("example.toml", "\npassword = \"hush\"\n");
    assert!(folder.load(&[]).unwrap().findings.is_empty());
    std::fs::set_permissions(&main, PermissionsExt::from_mode(0o644)).unwrap();
    let warnings = folder.load(&[]).unwrap().findings.to_string();
    assert!(warnings.contains("example.toml:2: warning: password: is a secret in a file"), "{warnings}");

    let warnings = folder.load(&[("OUTRIDER_EXAMPLE_PASSWORD", "hush")]).unwrap().findings.to_string();
    assert!(warnings.contains("$OUTRIDER_EXAMPLE_PASSWORD: warning: "), "{warnings}");
    assert!(!warnings.contains("hush"));

    // Both spellings at once are a mistake; a file key for something that is no secret as well.
    folder.write("example.toml", "password = \"a\"\npassword_file = \"/b\"\n");
    assert!(folder.errors(&[]).contains("example.toml:2: error: password_file: unknown key"));
    folder.write("example.toml", "[log]\nlevel_file = \"/b\"\n");
    assert!(folder.errors(&[]).contains("example.toml:2: error: log.level_file: unknown key"));
}

#[test]
fn settings_that_everybody_may_write_are_refused() {
    let folder = Folder::new("[log]\nlevel = \"info\"\n");
    std::fs::set_permissions(folder.main(), PermissionsExt::from_mode(0o666)).unwrap();
    assert!(folder.errors(&[]).contains("may be written by every user"));
}

#[test]
fn listening_to_the_world_needs_a_list_of_clients() {
    let folder = Folder::new("listen = [\"127.0.0.1:1\", \"0.0.0.0:7777\"]\n");
    let errors = folder.errors(&[]);
    assert!(
        errors.contains("error: limits.allow: 0.0.0.0:7777 can be reached from other machines"),
        "{errors}"
    );
    folder.write("example.toml", "listen = [\"0.0.0.0:7777\"]\nlimits.allow = [\"192.0.2.0/24\"]\n");
    folder.load(&[]).unwrap();
    folder.write("example.toml", "[metrics]\nlisten = [\"0.0.0.0:9777\"]\n");
    assert!(folder.errors(&[]).contains("example.toml:1: error: metrics.token: "));
}

#[test]
fn reference_is_complete_and_is_itself_valid() {
    assert_eq!(undocumented::<Example>(), Vec::<String>::new());
    let text = reference::<Example>("example");
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
    for expected in [
        "# How long a new sender waits.\n#block = \"15m\"\n",
        "# How unknown senders are delayed.\n#[greylisting]\n",
        "#listen = [\"127.0.0.1:7777\"]\n",
        "# Something hidden.\n#password =",
        "#max_connections = 1000\n",
    ] {
        assert!(text.contains(expected), "{expected}\nis missing in\n{text}");
    }
    // Without the comment signs it is a settings file that says what the defaults say.
    let values: String = text
        .lines()
        .filter(|line| line.starts_with('#') && !line.starts_with("# ") && !line.ends_with("# not set"))
        .map(|line| format!("{}\n", &line[1..]))
        .collect();
    let settings: Example = toml::from_str(&values).unwrap_or_else(|error| panic!("{error}\n{values}"));
    assert_eq!(toml::Table::try_from(settings).unwrap(), toml::Table::try_from(Example::default()).unwrap());
}
