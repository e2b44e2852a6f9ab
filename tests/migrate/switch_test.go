package migrate

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"siptraced/tests/servers"
	"siptraced/tests/vectors"
)

// TestSwitch has a proxy that traces only when it is told to, as products ship it:
// trace_on is 0, and kamcmd siptrace.status switches it. The pair has to follow the
// same switch in the same place, and to write the rows that Kamailio alone writes.
func TestSwitch(t *testing.T) {
	t.Parallel()
	db := servers.StartMariaDB(t)
	for name, trace := range map[string]string{
		"script":   `modparam("siptrace", "trace_flag", 22)`,
		"all":      `modparam("siptrace", "trace_mode", 3)`,
		"off by 0": "modparam(\"siptrace\", \"trace_on\", 0)\nmodparam(\"siptrace\", \"trace_mode\", 2)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := databaseName(name)
			v := values(servers.FreePorts(t, 6), db.URL(base))
			short, err := os.MkdirTemp("/tmp", "ctl") // unix addresses are short
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(short) })
			v["CTL"] = filepath.Join(short, "ctl")
			s := sample{
				name: name, base: "pkg/kamailio-oob.cfg", edits: oob,
				lines: "modparam(\"ctl\", \"binrpc\", \"unix:@CTL@\")\n" + standard + trace + "\n",
				calls: "	setflag(22);\n	sip_trace();\n",
			}
			d := newDatabase(t, db, base, s)
			h := s.migrate(t, v)
			run := func(cfg, yaml string) []vectors.Row {
				return s.during(t, d, v, cfg, yaml, func(*sink) int {
					phones := newPhones(t, number(t, v["ALICE"]), number(t, v["BOB"]), number(t, v["PORT"]), "127.0.0.1:"+v["PORT"])
					defer phones.close()
					phones.message("before")
					phones.options("before-too")
					for _, to := range []string{"on", "check"} {
						must(t, h.dir, "", "kamcmd", "-s", "unix:"+v["CTL"], "siptrace.status", to)
					}
					again := phones.traffic()
					must(t, h.dir, "", "kamcmd", "-s", "unix:"+v["CTL"], "siptrace.status", "off")
					phones.message("after")
					phones.options("after-too")
					phones.options(barrier)
					return again
				}).rows["sip_trace"]
			}
			rows := run(h.original, "")
			alone, pair := texts(t, rows, rows), texts(t, run(h.cfg, h.yaml), rows)
			if len(alone) == 0 || slices.ContainsFunc(alone, func(row string) bool { return strings.HasPrefix(row, "before") || strings.HasPrefix(row, "after") }) {
				t.Errorf("Kamailio alone wrote %q, want rows of what was said while tracing was on", alone)
			}
			for _, p := range diff("row", alone, pair) {
				t.Error(p)
			}
		})
	}
}
