//! The perf suite works on what it measures: a short run of one bench of each kind, without a peer. Nothing here is about speed.

use serde_json::Value;
use std::path::Path;

const RINGVISOR: &str = env!("CARGO_BIN_EXE_ringvisor");

/// A short run of the benches with such a name; its results.
fn run(dir: &Path, suite: &str, only: &str) -> Value {
    let file = |name: &str| dir.join(name).display().to_string();
    let (json, html, histograms) = (file("a.json"), file("a.html"), file("histograms"));
    let words = [
        "run",
        suite,
        "--quick",
        "--peer",
        "none",
        "--ringvisor",
        RINGVISOR,
        "--only",
        only,
        "--json",
        &json,
        "--html",
        &html,
        "--histograms",
        &histograms,
    ];
    let args = words.map(str::to_owned);
    let text = perf::cli::main(&args).unwrap_or_else(|error| panic!("{suite}: {error}"));
    assert!(text.contains(suite), "{text}");
    let html = std::fs::read_to_string(html).unwrap();
    assert!(html.contains("<svg") && html.contains(only), "{html:.2000}");
    let name = format!("{suite}-");
    let kept = std::fs::read_dir(histograms).unwrap().flatten();
    assert!(kept.map(|e| e.file_name()).any(|file| file.to_string_lossy().starts_with(&name)));
    let results: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let same = perf::cli::main(&["compare".to_owned(), json.clone(), json]).unwrap();
    assert!(same.contains("0 better, 0 worse"), "{same}");
    results
}

#[test]
fn a_short_run_of_each_kind_has_results() {
    if !testkit::kvm("a_short_run_of_each_kind_has_results") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (suite, only) in [
        ("boot", "process start to QMP greeting"),
        ("qmp", "query-status round trip, one CPU"),
        ("hotplug", "scsi-hd cycle, one CPU"),
        ("block", "null read QD 1 poll, IOPS"),
    ] {
        let document = run(dir.path(), suite, only);
        assert!(document["machine"]["cpus"].as_u64().unwrap() > 0);
        let commands = document["commands"].as_array().unwrap();
        let started = |command: &Value| command.as_str().unwrap().starts_with(RINGVISOR);
        assert!(!commands.is_empty() && commands.iter().all(started), "{commands:?}");
        let results = document["results"].as_array().unwrap();
        assert!(results.iter().any(|result| result["case"] == only));
        for result in results {
            assert_eq!(result["suite"], suite);
            assert!(result["ours"]["n"].as_u64().unwrap() > 0, "{result}");
            assert!(result["ours"]["p50"].as_f64().unwrap() >= 0.0, "{result}");
            assert_eq!(result["ours"]["rounds"].as_array().unwrap().len(), 2, "{result}");
            assert!(result["peer"].is_null() && result["ratio"].is_null(), "{result}");
            assert_eq!(result["notes"].as_array().unwrap().len(), 0, "{result}");
        }
    }
}
