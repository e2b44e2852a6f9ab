package control

import (
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

func TestBuild(t *testing.T) {
	const commit = "59af125aa1d2c3b4a5968778695a4b3c2d1e0f00"
	vcs := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs.revision", Value: commit}, {Key: "vcs.modified", Value: modified}, {Key: "vcs.time", Value: "2026-11-09T07:00:01Z"}}
	}
	for _, tt := range []struct {
		name, module                string
		settings                    []debug.BuildSetting
		line, id, compiled, printed string
	}{
		{"without version control", "(devel)", nil, "siptraced 0.1.0 (" + platform() + ") ", "unknown ", "", "revision: unknown\n"},
		{"a commit", "v0.0.0-20261109070001-59af125aa1d2", vcs("false"), "siptraced 0.1.0 (" + platform() + ") 59af125", commit + " ", "07:00:01 Nov  9 2026", "revision: " + commit + ", committed 2026-11-09 07:00:01 UTC\n"},
		{"with changes", "v0.0.0-20261109070001-59af125aa1d2+dirty", vcs("true"), "siptraced 0.1.0 (" + platform() + ") 59af125-dirty", commit + " -dirty", "07:00:01 Nov  9 2026", commit + ", with changes that are not committed, committed"},
		{"a release", "v1.4.2", vcs("false"), "siptraced 1.4.2 (" + platform() + ") 59af125", commit + " ", "07:00:01 Nov  9 2026", "siptraced 1.4.2 ("},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := Build{Version: version, Revision: unknownRevision, Go: "go1.26"}
			b.read(&debug.BuildInfo{Main: debug.Module{Version: tt.module}, Settings: tt.settings})
			if got := b.Line(); got != tt.line {
				t.Errorf("line %q, want %q", got, tt.line)
			}
			if id := b.Revision + " " + b.state(); id != tt.id || b.compiled() != tt.compiled {
				t.Errorf("id %q, compiled %q; want %q, %q", id, b.compiled(), tt.id, tt.compiled)
			}
			if got := b.String(); !strings.Contains(got, tt.printed) || !strings.HasSuffix(got, "\ncompiler: go1.26") {
				t.Errorf("printed %q, want %q", got, tt.printed)
			}
		})
	}
	if b := ReadBuild(); b.Go == "" || b.Revision == "" || b.Time.After(time.Now().Add(24*time.Hour)) {
		t.Errorf("%+v", b)
	}
}
