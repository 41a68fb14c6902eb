//! How an operator sets a server up: file, environment and flags, and what is wrong with them.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use crate::support::{Server, diptych, fail, mini_model, run, succeed};

/// The value and the origin of a setting in what `config print` printed.
fn printed<'a>(page: &'a str, table: &str, name: &str) -> (&'a str, &'a str) {
    let mut here = "";
    for line in page.lines() {
        if let Some(header) = line.strip_prefix('[') {
            here = header.trim_end_matches(']');
        } else if here == table
            && let Some((found, rest)) = line.split_once(" = ")
            && found == name
        {
            return rest.rsplit_once("  # ").unwrap();
        }
    }
    panic!("no {table}.{name} in\n{page}");
}

#[test]
fn flags_go_before_the_environment_that_before_the_file_and_that_before_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let file = "\
data = \"records\"

[server]
requests_max = 11
connections_max = 11
streams_per_connection_max = 11
";
    std::fs::write(dir.path().join("diptych.toml"), file).unwrap();
    let args = ["config", "print", "--config", "diptych.toml", "--requests-max", "33"];
    let output = diptych(dir.path(), &args)
        .env("DIPTYCH_REQUESTS_MAX", "22")
        .env("DIPTYCH_CONNECTIONS_MAX", "22")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed(&page, "server", "requests_max"), ("33", "--requests-max"));
    assert_eq!(printed(&page, "server", "connections_max"), ("22", "DIPTYCH_CONNECTIONS_MAX"));
    assert_eq!(printed(&page, "server", "streams_per_connection_max"), ("11", "diptych.toml, line 6"));
    assert_eq!(printed(&page, "server", "listen"), ("\"127.0.0.1:7700\"", "default"));
    assert!(page.contains("\n# model is not set\n"), "{page}");
}

#[test]
fn what_is_printed_is_a_file_that_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let odd = "a \"quoted\" # name";
    let args = ["config", "print", "--data", odd, "--model", "hf:owner/name", "--recall-sample", "0.25"];
    let more = ["--metrics-listen", "127.0.0.1:9770", "--log-format", "json", "--timeout-seconds", "1.5"];
    let page = succeed(dir.path(), &[&args[..], &more, &["--metrics-remote"]].concat());
    let elsewhere = dir.path().join("etc");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("printed.toml"), &page).unwrap();
    let said = succeed(dir.path(), &["config", "check", "etc/printed.toml"]);
    assert!(said.starts_with("etc/printed.toml is right: it sets "), "{said}");
    let again = succeed(dir.path(), &["config", "print", "--config", "etc/printed.toml"]);
    let values = |page: &str| -> Vec<String> {
        page.lines()
            .map(|line| line.rsplit_once("  # ").map_or(line, |(value, _)| value).to_owned())
            .collect()
    };
    assert_eq!(values(&page), values(&again));
    assert!(printed(&again, "", "data").0.contains("quoted"), "{again}");
    assert_eq!(printed(&again, "", "model").0, "\"hf:owner/name\"");
    assert_eq!(printed(&again, "metrics", "remote").0, "true");
}

#[test]
fn check_tells_every_problem_and_never_what_a_wrong_key_holds() {
    let dir = tempfile::tempdir().unwrap();
    let file = "\
dta = \"hunter2\"
[server]
requests_max = 0
listen = \"somewhere\"
[metrics]
listen = \"0.0.0.0:9770\"
[metrcs]
password = \"hunter2\"
";
    std::fs::write(dir.path().join("bad.toml"), file).unwrap();
    let output = run(dir.path(), &["config", "check", "bad.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    for expected in [
        "bad.toml:1: dta: there is no such setting; did you mean 'data'?",
        "bad.toml:3: server.requests_max: '0' does not fit: use a whole number from 1 to 65536",
        "bad.toml:4: server.listen: 'somewhere' is no address",
        "bad.toml:7: there is no table [metrcs]; did you mean 'metrics'?",
        "metrics.listen: 0.0.0.0:9770 is reachable from other machines",
    ] {
        assert!(said.contains(expected), "'{said}' does not say '{expected}'");
    }
    assert!(!said.contains("hunter2"), "{said}");
    let refused = fail(dir.path(), &["serve", "--config", "bad.toml"]);
    assert_eq!(refused, said, "serve refuses for the same reasons");
    let absent = fail(dir.path(), &["config", "check", "absent.toml"]);
    assert!(absent.contains("absent.toml: it cannot be read"), "{absent}");
}

#[test]
fn flags_and_variables_out_of_bounds_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let said = fail(dir.path(), &["serve", "--recall-sample", "1.5"]);
    assert!(said.contains("--recall-sample") && said.contains("use a share from 0 to 1"), "{said}");
    let output = diptych(dir.path(), &["serve"]).env("DIPTYCH_BATCH_POSITIONS", "0").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("--batch-positions") && said.contains("from 1"),
        "{said}"
    );
    let said = fail(dir.path(), &["serve", "--model", "somewhere"]);
    assert!(said.contains("there is no data: give --data DIR, set DIPTYCH_DATA"), "{said}");
    let said = fail(dir.path(), &["serve", "--data", "somewhere"]);
    assert!(said.contains("there is no model: give --model"), "{said}");
}

/// A file that sets everything a server needs; its paths are relative to it.
fn config_file(dir: &Path, more: &str) {
    std::fs::create_dir_all(dir.join("etc")).unwrap();
    let file = format!(
        "data = \"../data\"\nmodel = {:?}\n[server]\nlisten = \"127.0.0.1:0\"\n{more}",
        mini_model().to_str().unwrap()
    );
    std::fs::write(dir.join("etc/diptych.toml"), file).unwrap();
}

#[test]
fn a_server_runs_from_its_file_alone_and_keeps_to_its_bounds() {
    let dir = tempfile::tempdir().unwrap();
    config_file(dir.path(), "connections_max = 1\n");
    let server = Server::spawn(&mut diptych(dir.path(), &["serve", "--config", "etc/diptych.toml"]));
    assert!(dir.path().join("data").is_dir(), "beside etc, not where the program was started");
    assert_eq!(succeed(dir.path(), &["health", "--server", &server.url]), "SERVING\n");

    let address = server.url.trim_start_matches("http://");
    let mut held = Vec::new();
    // The one connection is taken as soon as the server has seen one of ours. It may see the next before,
    // and refuse ours as long as it has not seen the end of the one above.
    let refused = (0..1000).any(|_| {
        held.push(std::net::TcpStream::connect(address).unwrap());
        !run(dir.path(), &["health", "--server", &server.url]).status.success()
    });
    assert!(refused, "there is no second connection");
    drop(held);
    assert!(server.stop().success());
}

#[test]
fn health_is_an_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let url = server.url.clone();
    assert_eq!(succeed(dir.path(), &["health", "--server", &url]), "SERVING\n");
    assert!(server.stop().success());
    let output = run(dir.path(), &["health", "--server", &url]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot reach") && said.contains(&url), "{said}");
}

#[test]
fn systemd_is_told_when_the_server_is_ready_and_when_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    config_file(dir.path(), "");
    let socket = dir.path().join("notify");
    let told = UnixDatagram::bind(&socket).unwrap();
    let mut command = diptych(dir.path(), &["serve", "--config", "etc/diptych.toml"]);
    let server = Server::spawn(command.env("NOTIFY_SOCKET", &socket));
    let mut state = [0; 64];
    let length = told.recv(&mut state).unwrap();
    assert_eq!(&state[..length], b"READY=1");
    assert!(server.stop().success());
    let length = told.recv(&mut state).unwrap();
    assert_eq!(&state[..length], b"STOPPING=1");
}

#[test]
fn shells_and_manual_pages_know_every_setting() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = succeed(dir.path(), &["completions", shell]);
        for word in ["serve", "completions", "metrics-listen", "query-cache-bytes"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
        if shell == "bash" {
            std::fs::write(dir.path().join("completions.bash"), &script).unwrap();
            let checked =
                Command::new("bash").args(["-n", "completions.bash"]).current_dir(dir.path()).status();
            assert!(checked.unwrap().success());
        }
    }
    succeed(dir.path(), &["man", "pages"]);
    let page = std::fs::read_to_string(dir.path().join("pages/diptych-serve.1")).unwrap();
    assert!(page.contains("metrics\\-listen") && page.contains("DIPTYCH_METRICS_LISTEN"), "{page}");
}

#[test]
fn the_packaged_file_is_right() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/packaging/diptych.toml");
    let dir = tempfile::tempdir().unwrap();
    let said = succeed(dir.path(), &["config", "check", file.to_str().unwrap()]);
    assert!(said.contains("is right"), "{said}");
}
