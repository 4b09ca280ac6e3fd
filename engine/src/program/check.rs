//! `sluice check`: reads a configuration, says what is wrong with it, prints the mail-flow matrix.

use super::{CONFIGURATION, Failed, print};
use crate::config::{Config, Listener, SmartHost, Target};
use crate::policy;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

/// Prints the matrix of a good configuration.
pub fn check(path: &Path) -> Result<(), Failed> {
    let config = load(path)?;
    let text = format!(
        "{}: good\n{}\nWho may send where:\n\n{}",
        path.display(),
        warnings(&config),
        policy::matrix(&config)
    );
    print(&text)
}

/// What is allowed and seldom meant.
pub fn warnings(config: &Config) -> String {
    let mut warnings = String::new();
    if let Some(address) = config.admin.bind.filter(|address| !address.ip().is_loopback()) {
        let _ = writeln!(
            warnings,
            "warning: admin.bind {address} is no loopback address, and the admin page asks nobody for a password"
        );
    }
    let hosts = config.routes.iter().enumerate().flat_map(|(index, route)| match &route.target {
        Target::SmartHosts(hosts) => hosts.iter().map(|host| (index + 1, host)).collect(),
        Target::Mx { .. } => Vec::new(),
    });
    for (route, SmartHost { host, port }) in hosts {
        let Ok(address) = host.parse::<IpAddr>() else { continue };
        for listener in config.listeners.iter().filter(|listener| listens_on(listener, address, *port)) {
            let _ = writeln!(
                warnings,
                "warning: route {route} sends to {host}:{port}, where this relay's own listener \"{}\" is: mail would loop",
                listener.name
            );
        }
    }
    warnings
}

fn listens_on(listener: &Listener, address: IpAddr, port: u16) -> bool {
    listener.bind.iter().any(|bind| {
        bind.port() == port && (bind.ip() == address || bind.ip().is_unspecified() && address.is_loopback())
    })
}

/// A configuration, or all that is wrong with it and exit code 78.
pub fn load(path: &Path) -> Result<Config, Failed> {
    Config::load(path).map_err(|error| Failed::new(CONFIGURATION, error))
}

/// A configuration to find the spool by and to name next hops; what only a running relay needs may be bad.
pub fn load_for_queue(path: &Path) -> Result<Config, Failed> {
    Config::load_for_queue(path).map_err(|error| Failed::new(CONFIGURATION, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seldom_meant_is_warned_of() {
        let mut config = Config::demonstration();
        assert_eq!(warnings(&config), "");
        config.admin.bind = Some("0.0.0.0:8025".parse().unwrap());
        assert!(warnings(&config).starts_with("warning: admin.bind 0.0.0.0:8025"));
        config.admin.bind = None;
        let Target::SmartHosts(hosts) = &mut config.routes[0].target else { panic!("a smart host") };
        hosts[0] = SmartHost { host: "127.0.0.1".into(), port: 2526 };
        assert!(warnings(&config).contains("route 1 sends to 127.0.0.1:2526"), "{}", warnings(&config));
        assert!(warnings(&config).contains("\"inside\""));
    }
}
