//! iRedAPD's settings as JSON on standard input become ours, as JSON on standard output.

use std::process::ExitCode;

use outrider_policyd::settings::iredapd::translate;

fn main() -> ExitCode {
    let theirs = match serde_json::from_reader(std::io::stdin().lock()) {
        Ok(theirs) => theirs,
        Err(error) => {
            eprintln!("no JSON object of settings: {error}");
            return ExitCode::from(2);
        }
    };
    let translation = translate(&theirs);
    // What has no effect here is told, as the importer does; a case that needs it fails by itself.
    let unknown = translation.unknown.iter().map(|name| format!("{name}: no setting of iRedAPD"));
    for remark in unknown.chain(translation.remarks).chain(translation.notes) {
        eprintln!("{remark}");
    }
    println!("{}", serde_json::Value::Object(translation.settings));
    ExitCode::SUCCESS
}
