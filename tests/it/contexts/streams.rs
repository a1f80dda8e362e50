//! Standard output and error: whatever a cell does with them, the next one has them.

use serde_json::json;

use super::code;
use super::data::of_image;
use crate::harness::Daemon;

#[test]
fn a_cell_that_closes_its_output_does_not_silence_others() {
    let daemon = Daemon::start();
    let host = daemon.sandbox();
    let image = of_image(&daemon, "python");
    let python: [&str; 6] = [
        "import os, sys; os.dup2(os.open('/dev/null', os.O_WRONLY), 1); print('lost')",
        "os.close(1); os.close(2)",
        "sys.stdout.close(); sys.stderr.close()",
        "del sys.stdout, sys.stderr",
        "sys.stdout = sys.stderr = 5",
        "os.close(1); other = os.open('/tmp/other', os.O_CREAT | os.O_WRONLY);",
    ];
    let says = "import subprocess; print('out'); print('err', file=sys.stderr); subprocess.call('echo program', shell=True);";
    for name in std::iter::once(&host).chain(&image) {
        for cell in python {
            code(&daemon, name, "python", cell);
            let result = code(&daemon, name, "python", says);
            let found = (&result["stdout"], &result["stderr"]);
            assert_eq!(found, (&json!("out\nprogram\n"), &json!("err\n")), "{cell}: {result}");
        }
    }
    let says = "console.log('out'); console.error('err'); require('child_process').spawnSync('echo', ['program'], {stdio: 'inherit'});";
    for cell in [
        "const fs = require('fs'); fs.closeSync(1); console.log('lost'); process.stdout.write('lost')",
        "fs.closeSync(1); fs.closeSync(2); fs.openSync('/tmp/mine', 'w'); console.log('there')",
        "fs.closeSync(0); fs.closeSync(1)",
    ] {
        code(&daemon, &host, "javascript", cell);
        let result = code(&daemon, &host, "javascript", says);
        let found = (&result["stdout"], &result["stderr"]);
        assert_eq!(found, (&json!("out\nprogram\n"), &json!("err\n")), "{cell}: {result}");
    }
}
