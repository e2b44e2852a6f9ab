package config

import (
	"os"
	"path/filepath"
	"strings"

	"siptraced/compat/siptrace"
)

// directory is where files are that nobody named; the zero value is the current
// directory.
type directory struct {
	path     string
	variable string // of the environment, which names it
}

// directories are those of systemd (systemd.exec(5), RuntimeDirectory=, StateDirectory=,
// LogsDirectory=) where it started us, and else the current one.
type directories struct{ state, logs, runtime directory }

func readDirectories(environ []string) directories {
	find := func(variable string) directory {
		for _, e := range environ {
			if name, value, _ := strings.Cut(e, "="); name == variable {
				// Several are separated by colons.
				if first, _, _ := strings.Cut(value, ":"); first != "" {
					return directory{first, variable}
				}
			}
		}
		return directory{}
	}
	d := directories{state: find("STATE_DIRECTORY"), logs: find("LOGS_DIRECTORY"), runtime: find("RUNTIME_DIRECTORY")}
	if d.logs.path == "" {
		d.logs = d.state
	}
	return d
}

// file is the path of a file there; of one in the current directory it is the name.
func (d directory) file(name string) string { return filepath.Join(d.path, name) }

// origin is what stands behind a value that is in the directory.
func (d directory) origin(why string) string {
	var parts []string
	if why != "" {
		parts = append(parts, why)
	}
	if d.variable != "" {
		parts = append(parts, "$"+d.variable)
	}
	if parts == nil {
		return byDefault
	}
	return defaultFor(strings.Join(parts, ", "))
}

// settle puts the files that nobody named into the directories.
func (c *Config) settle(d directories) {
	set := func(name string, in directory, path *string) {
		if s, ok := c.setting(name); in.path == "" || ok && s.value != nil {
			return
		}
		*path, c.derived[name] = in.file(*path), in.origin("")
	}
	set("spool.dir", d.state, &c.Spool.Dir)
	set("rules.state_file", d.state, &c.Rules.StateFile)
	set("store.reject_file", d.logs, &c.Store.RejectFile)
	ctl := "ctl"
	if set("rpc.ctl", d.runtime, &ctl); ctl != "ctl" {
		c.RPC.Ctl = []string{"unix:" + ctl}
	}
}

// noteExposed says which files with messages or settings in them every user of this
// host can read. Those that siptraced makes are not among them.
func (c *Config) noteExposed() {
	files := []string{c.Store.RejectFile, c.Rules.StateFile, c.RPC.StateFile}
	if c.Store.URL.Driver == siptrace.DriverSQLite {
		files = append(files, c.Store.URL.Database)
	}
	for _, f := range files {
		f = filepath.Clean(f)
		if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 {
			c.Notes = append(c.Notes, f+" can be read by every user of this host; chmod o-r "+f)
		}
	}
}
