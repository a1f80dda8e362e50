fn main() -> std::process::ExitCode {
    let name = std::env::args().next().unwrap_or_default();
    if let Some(code) = stockade::roles::run(&name) {
        return code;
    }
    let c = stockade::config::Config::default();
    let dir = std::env::args().nth(1).unwrap();
    let s = stockade::wire::launch::Settings {
        runtime_dir: format!("{dir}/run"),
        state_dir: format!("{dir}/state"),
        ids_first: c.ids_first,
        socket: format!("{dir}/run/s.sock"),
        socket_gid: None,
        operator_gid: None,
        default_memory_bytes: c.defaults.memory_bytes,
        default_pids: 512,
        default_tmpfs_bytes: 1 << 20,
        require_limits: false,
        notify_socket: None,
        log: "debug".into(),
        log_json: false,
        private: false,
    };
    let e = stockade::roles::become_launcher(s, None, None);
    eprintln!("{e}");
    std::process::ExitCode::FAILURE
}
