//! What is said outside the file: flags, and the variables of the same names.

use super::problem::Place;
use super::written::Written;
use super::{Arguments, Environment};

/// The variable that may hold the whole file.
pub(super) const CONFIG_YAML: &str = "ENTREPOT_CONFIG_YAML";

/// The command line and the environment.
#[derive(Clone, Copy)]
pub(super) struct Outside<'a> {
    pub(super) arguments: &'a Arguments,
    pub(super) environment: &'a Environment<'a>,
}

impl<'a> Outside<'a> {
    /// Takes both in.
    pub(super) fn new(arguments: &'a Arguments, environment: &'a Environment<'a>) -> Self {
        Self {
            arguments,
            environment,
        }
    }

    /// What is written for one setting, in the order that counts: flag, variable, file.
    pub(super) fn layers(
        &self,
        flag: &'static str,
        argument: Option<&String>,
        in_file: Option<Written>,
    ) -> [Option<Written>; 3] {
        let argument = argument.map(|text| Written::outside(Place::Flag(flag), text));
        [argument, self.variable(flag), in_file]
    }

    /// What is written for a setting that has no key in the file.
    pub(super) fn first(&self, flag: &'static str, argument: Option<&String>) -> Option<Written> {
        self.layers(flag, argument, None)
            .into_iter()
            .flatten()
            .next()
    }

    /// `--upstream`, else its variable, in which spaces part one from the next.
    pub(super) fn upstreams(&self) -> Vec<Written> {
        let flag = "--upstream";
        let arguments = &self.arguments.upstream;
        if !arguments.is_empty() {
            let written = |text: &String| Written::outside(Place::Flag(flag), text);
            return arguments.iter().map(written).collect();
        }
        let Some(variable) = self.variable(flag) else {
            return Vec::new();
        };
        let written = |text: &str| Written::outside(variable.place().clone(), text);
        variable.text().split_whitespace().map(written).collect()
    }

    /// The whole file, where a variable holds it.
    pub(super) fn config_yaml(&self) -> Option<String> {
        (self.environment)(CONFIG_YAML).filter(|text| !text.is_empty())
    }

    /// The variable that stands for `flag`: `ENTREPOT_CACHE_DIR` for `--cache-dir`.
    fn variable(&self, flag: &'static str) -> Option<Written> {
        let name = flag
            .trim_start_matches('-')
            .replace('-', "_")
            .to_ascii_uppercase();
        let name = format!("ENTREPOT_{name}");
        let text = (self.environment)(&name)?;
        // A variable is often set to nothing by whoever means to leave it out. Only an expression may be empty.
        if text.is_empty() && flag != "--ignore" {
            return None;
        }
        // Beside a Service called `entrepot`, Kubernetes sets this variable of every pod to `tcp://10.0.0.1:3000`
        // (Kubernetes "Environment variables" of a Service, after Docker's container links). It is not meant for us.
        if flag == "--port" && text.contains("://") {
            return None;
        }
        Some(Written::outside(Place::Variable(name), &text))
    }
}
