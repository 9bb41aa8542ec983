//! Statistics of a JSON list of numbers: `[3,1,2]` on standard input gives
//! `{"count":3,"max":3.0,"mean":2.0,"min":1.0,"sum":6.0}` on standard output.
//!
//! A WASI command: its standard output is what the contract gets back; an exit code other than 0 is a failure,
//! told by the standard error output.

use std::io::{self, Read};
use std::process::ExitCode;

use serde_json::{json, Value};

fn main() -> ExitCode {
    match statistics() {
        Ok(answer) => {
            print!("{answer}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn statistics() -> Result<Value, String> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|error| format!("the input is no text: {error}"))?;
    let values: Vec<f64> = serde_json::from_str(&text).map_err(|error| format!("the input is no list of numbers: {error}"))?;
    if values.is_empty() {
        return Err("the list is empty".into());
    }
    let sum: f64 = values.iter().sum();
    Ok(json!({
        "count": values.len(),
        "sum": sum,
        "mean": sum / values.len() as f64,
        "min": values.iter().copied().fold(f64::INFINITY, f64::min),
        "max": values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }))
}
