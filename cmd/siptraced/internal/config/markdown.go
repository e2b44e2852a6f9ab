package config

import (
	_ "embed"
	"fmt"
	"strings"

	"siptraced/compat/siptrace"
)

// introduction is what CONFIGURATION.md says before its tables.
//
//go:embed introduction.txt
var introduction string

// Markdown is cmd/siptraced/CONFIGURATION.md: every key with its default and its
// meaning, and whether it is live.
func Markdown() string {
	var b strings.Builder
	b.WriteString(introduction)
	section := ""
	defaults := Default()
	for _, k := range Keys() {
		if strings.HasPrefix(k.Name, module) {
			continue
		}
		if s := sectionOf(k.Name); s != section {
			section = s
			fmt.Fprintf(&b, "\n## %s\n\n| key | default | meaning | a change |\n| --- | --- | --- | --- |\n", s)
		}
		def := k.text(defaults)
		if def == unset {
			def = ""
		} else {
			def = "`" + def + "`"
		}
		name := "`" + k.Name + "`"
		if k.Old != "" {
			name += " (formerly `" + k.Old + "`)"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, def, k.Doc, takesEffect(k.Restart, k.Remote))
	}
	b.WriteString("\n## Members of `destinations`\n\n| member | where it is not set |\n| --- | --- |\n")
	for _, m := range members() {
		general := ""
		if m.general != "" {
			general = "`" + m.general + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", m.name, general)
	}
	b.WriteString("\n## The module's parameters\n\nEach is the key `siptrace.NAME`.\n\n")
	b.WriteString(ParamTable())
	return b.String()
}

// ParamTable is the table of the module's parameters in Markdown.
func ParamTable() string {
	var b strings.Builder
	b.WriteString("| parameter | default | here | a change |\n| --- | --- | --- | --- |\n")
	for _, s := range siptrace.Specs() {
		def := ""
		if s.Default != nil {
			def = fmt.Sprintf("`%v`", s.Default)
		}
		k := param(s)
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.Name, def, s.Doc, takesEffect(k.Restart, k.Remote))
	}
	return b.String()
}

func takesEffect(restart string, remote bool) string {
	switch {
	case restart != "":
		return "restart: " + restart
	case remote:
		return "SIGHUP, RPC"
	}
	return "SIGHUP"
}

// sectionOf is the heading that a key stands under.
func sectionOf(name string) string {
	group, _, ok := strings.Cut(name, ".")
	switch {
	case group == "rpc":
		return "Remote control"
	case group == "mirror" || name == "destinations":
		return "Mirrors"
	case group == "rules" || name == "event_route":
		return "Rules"
	case group == "spool":
		return "Spool"
	case group == "store" || name == "timezone":
		return "Database"
	case ok && group == "log" || name == "memory_limit" || name == "shutdown_timeout":
		return "Process"
	}
	return "Intake"
}
