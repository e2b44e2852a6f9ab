package config

import (
	"strings"
	"testing"
)

// Files that nobody named are in the directories of systemd, where there are some,
// and check says why.
func TestDirectories(t *testing.T) {
	const database, spool, rules, rejects, ctl = "siptrace.db_url", "spool.dir", "rules.state_file", "store.reject_file", "rpc.ctl"
	for _, tt := range []struct {
		name    string
		environ []string
		set     []string
		want    map[string]string // of the line that check prints
	}{
		{"by hand", nil, nil, map[string]string{
			database: `"sqlite://siptraced.db"  (default, there is no kamailio.cfg)`, spool: "siptraced.spool  (default)", rules: "siptraced.rules.json  (default)",
			rejects: "siptraced.rejects.jsonl  (default)", ctl: "unix:/run/siptraced/ctl  (default)",
		}},
		{"all of them", []string{"STATE_DIRECTORY=/var/lib/siptraced", "LOGS_DIRECTORY=/var/log/siptraced", "RUNTIME_DIRECTORY=/run/other"}, nil, map[string]string{
			database: `"sqlite:///var/lib/siptraced/siptraced.db"  (default, there is no kamailio.cfg, $STATE_DIRECTORY)`,
			spool:    "/var/lib/siptraced/siptraced.spool  (default, $STATE_DIRECTORY)", rules: "/var/lib/siptraced/siptraced.rules.json  (default, $STATE_DIRECTORY)",
			rejects: "/var/log/siptraced/siptraced.rejects.jsonl  (default, $LOGS_DIRECTORY)", ctl: "unix:/run/other/ctl  (default, $RUNTIME_DIRECTORY)",
		}},
		{"the first of several, and no logs", []string{"STATE_DIRECTORY=/a:/b", "LOGS_DIRECTORY="}, nil, map[string]string{
			spool: "/a/siptraced.spool  (default, $STATE_DIRECTORY)", rejects: "/a/siptraced.rejects.jsonl  (default, $STATE_DIRECTORY)", ctl: "unix:/run/siptraced/ctl  (default)",
		}},
		{"what is named stays", []string{"STATE_DIRECTORY=/a", "RUNTIME_DIRECTORY=/r"}, []string{"spool.dir=here", "store.reject_file=r", "rules.state_file=", "rpc.ctl=", database + "=sqlite://x.db"}, map[string]string{
			database: `"sqlite://x.db"  (--set siptrace.db_url)`, spool: "here  (--set spool.dir)", rejects: "r  (--set store.reject_file)", rules: "unset  (--set rules.state_file)", ctl: "unset  (--set rpc.ctl)",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Load(Sources{Environ: tt.environ, Set: tt.set})
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range c.Values {
				want, ok := tt.want[v.Name]
				if !ok {
					continue
				}
				if got := strings.TrimPrefix(v.String(), v.Name+" = "); got != want {
					t.Errorf("%s: got %s, want %s", v.Name, got, want)
				}
				if v.IsDefault() != strings.Contains(want, "(default") {
					t.Errorf("%s: IsDefault() is %v", v, v.IsDefault())
				}
			}
		})
	}
}
