package control

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// version is that of a program that was not built from a tagged module.
const version = "0.1.0"

// Build is what this program was made of.
type Build struct {
	Version string // "0.1.0"
	// Revision is the commit, or "unknown" where the build recorded none
	// (-buildvcs=false, a tree without its repository).
	Revision string
	Modified bool      // the tree had changes that were not committed
	Time     time.Time // of the commit; zero: unknown
	Go       string    // the compiler, "go1.26.0"
}

const unknownRevision = "unknown"

// ReadBuild reads what the Go command recorded in this program.
func ReadBuild() Build {
	b := Build{Version: version, Revision: unknownRevision, Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.read(info)
	return b
}

func (b *Build) read(info *debug.BuildInfo) {
	// v0.0.0-... names a commit, no release.
	if v := info.Main.Version; strings.HasPrefix(v, "v") && !strings.HasPrefix(v, "v0.0.0-") {
		b.Version = v[1:]
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		case "vcs.time":
			b.Time, _ = time.Parse(time.RFC3339, s.Value)
		}
	}
}

// short is the revision as Kamailio ends its version with it: empty where it is
// not known.
func (b Build) short() string {
	if b.Revision == unknownRevision {
		return ""
	}
	return b.Revision[:min(len(b.Revision), 7)] + b.state()
}

func (b Build) state() string {
	if b.Modified {
		return "-dirty"
	}
	return ""
}

// Line is the version as core.version answers it: "siptraced 0.1.0 (x86_64/linux) 59af125".
func (b Build) Line() string {
	return fmt.Sprintf("siptraced %s (%s) %s", b.Version, platform(), b.short()) // the blank before what is missing is Kamailio's
}

// compiled is the commit's time as Kamailio writes when it was compiled, "" where it
// is not known.
func (b Build) compiled() string {
	if b.Time.IsZero() {
		return ""
	}
	return b.Time.UTC().Format("15:04:05 Jan _2 2006")
}

// String is all of it, for people.
func (b Build) String() string {
	revision := b.Revision
	if b.Modified {
		revision += ", with changes that are not committed"
	}
	if !b.Time.IsZero() {
		revision += b.Time.UTC().Format(", committed 2006-01-02 15:04:05 UTC")
	}
	return fmt.Sprintf("%s\nrevision: %s\ncompiler: %s", strings.TrimSpace(b.Line()), revision, b.Go)
}
