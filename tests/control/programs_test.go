package control

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// aFault is the shape of a fault with a text of the server's own: Kamailio
// prints which internal check found no parameter, and over JSON even succeeds.
const aFault = `^error: 400 - .+\n$`

// A command and what both servers have to print: the same, or, where they may
// differ, what matches shape.
var commands = []struct {
	args  string
	shape string // of kamcmd's standard output; "" = equal
}{
	{args: "siptrace.status check"},
	{args: "siptrace.status off"},
	{args: "siptrace.status check"},
	{args: "siptrace.status on"},
	{args: "siptrace.status check"},
	{args: "siptrace.status OFF"},
	{args: "siptrace.status offhook"},
	{args: "siptrace.status CHECK"},
	{args: "siptrace.status ON"},
	{args: "siptrace.status check"},
	{args: "siptrace.status off"},
	{args: "siptrace.status onx"},
	{args: "siptrace.status checked"},
	{args: "siptrace.status bogus"},
	{args: "siptrace.status"},
	{args: "siptrace.status 1"},
	{args: "siptrace.status 1.5"},
	{args: "siptrace.status s:1"},
	{args: "siptrace.status s:on"},
	{args: "siptrace.status on off"},
	{args: "siptrace.status check"},
	{args: "siptrace.nosuch"},
	{args: "siptrace.nosuch with parameters 1 2.5"},
	{args: "Siptrace.Status on"},
	{args: "no"},
	{args: "stats.get_statistics siptrace:"},
	{args: "stats.get_statistics traced_requests"},
	{args: "stats.get_statistics traced_replies traced_requests"},
	{args: "stats.get_statistics siptrace:traced_requests traced_replies"},
	{args: "stats.get_statistics siptrace.traced_requests siptrace"},
	{args: "stats.get_statistics nosuch siptrace:"},
	{args: "stats.get_statistics 1 traced_requests"},
	{args: "stats.get_statistics traced_requests 1 traced_replies"},
	{args: "stats.get_statistics nogroup:"},
	{args: "stats.get_statistics nosuch"},
	{args: "stats.get_statistics"},
	{args: "stats.fetch siptrace:"},
	{args: "stats.fetch traced_requests"},
	{args: "stats.fetch nogroup:"},
	{args: "stats.fetch siptrace:traced_requests traced_replies"},
	{args: "stats.fetch siptrace.traced_requests"},
	{args: "stats.fetch siptrace:traced_requests siptrace.traced_replies"},
	{args: "stats.fetch traced_replies nosuch traced_requests"},
	{args: "stats.fetch siptrace:nosuch nogroup:traced_requests Siptrace:traced_requests"},
	{args: "stats.fetch :traced_requests .traced_requests siptrace. siptrace:traced_requests: siptrace::traced_requests : ."},
	{args: "stats.fetch 1"},
	{args: "stats.fetch traced_requests 1 traced_replies"},
	{args: "stats.fetch"},
	{args: "stats.fetchn siptrace:"},
	{args: "stats.fetchn traced_replies"},
	{args: "stats.fetchn siptrace:traced_requests traced_replies"},
	{args: "stats.fetchn siptrace.traced_requests siptrace:traced_replies"},
	{args: "stats.fetchn"},
	{args: "stats.reset_statistics siptrace:"},
	{args: "stats.reset_statistics traced_requests"},
	{args: "stats.reset_statistics siptrace:traced_requests traced_replies"},
	{args: "stats.reset_statistics traced_requests 1", shape: aFault},
	{args: "stats.reset_statistics 1"},
	{args: "stats.reset_statistics nogroup:"},
	{args: "stats.reset_statistics"},
	{args: "stats.clear_statistics siptrace:"},
	{args: "stats.clear_statistics siptrace:traced_requests traced_replies"},
	{args: "stats.clear_statistics traced_requests 1"},
	{args: "stats.clear_statistics"},
	{args: "cnt.get siptrace traced_requests"},
	{args: "cnt.get siptrace traced_replies"},
	{args: "cnt.get siptrace nosuch"},
	{args: "cnt.get nogroup traced_requests"},
	{args: "cnt.get siptrace"},
	{args: "cnt.get", shape: aFault},
	{args: "cnt.grp_get_all siptrace"},
	{args: "cnt.grp_get_all nogroup"},
	{args: "cnt.grp_get_all", shape: aFault},
	{args: "cnt.var_list siptrace"},
	{args: "cnt.var_list nogroup"},
	{args: "cnt.var_list", shape: aFault},
	{args: "cnt.reset siptrace traced_requests"},
	{args: "cnt.reset siptrace nosuch"},
	{args: "cnt.reset", shape: aFault},
	{args: "cnt.grps_list", shape: `^([a-z_]+\n)*siptrace\n([a-z_]+\n)*$`},
	{args: "core.version", shape: `^(kamailio|siptraced) [0-9]+\.[0-9]+\.[0-9]+\S* \([a-z0-9_]+/linux\) \n$`},
	{args: "core.uptime", shape: `^\{\n\tnow: \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\n\tup_since: \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\n\tuptime: \d+\n\}\n$`},
	{args: "core.info", shape: `^\{\n\tversion: (kamailio|siptraced) \S+\n\tid: .+\n\tcompiler: .+\n\tcompiled: .*\n\tflags: .*\n\}\n$`},
	{args: "core.ps", shape: `^(\d+\n[^\n]+\n)+$`},
	{args: "core.psx", shape: `^(\{\n\tIDX: \d+\n\tPID: \d+\n\tDSC: [^\n]+\n\}\n)+$`},
	{args: "core.sockets_list", shape: `^\{\n(\tsocket: \{\n\t\tproto: udp\n\t\taddress: 127\.0\.0\.1\n\t\tipaddress: 127\.0\.0\.1\n\t\tport: \d+\n\t\tmcast: no\n\t\tmhomed: no\n(\t\tvirtual: no\n)?\t\}\n)+\}\n$`},
	{args: "corex.list_sockets", shape: `^(\{\n\tPROTO: udp\n\tNAME: 127\.0\.0\.1\n\tADDRLIST: \{\n\t\tADDR: 127\.0\.0\.1\n\t\}\n\tPORT: \d+\n\tMCAST: no\n\tMHOMED: no\n(\tVIRTUAL: no\n)?(\tSOCKNAME: -\n)?\tADVERTISE: -\n\}\n)+$`},
	{args: "system.methodHelp siptrace.status"},
	{args: "system.methodHelp nosuch"},
	{args: "system.methodHelp"},
	{args: "system.methodHelp 1"},
	{args: "system.methodSignature siptrace.status"},
	{args: "system.methodSignature"},
}

// TestPrograms runs the unmodified programs against siptraced and against a real
// Kamailio: standard output, standard error and exit code have to be equal.
func TestPrograms(t *testing.T) {
	theirs := newEnds(t)
	kamailio(t, theirs)
	ours := start(t, options{}).ends

	for _, kind := range kinds {
		t.Run("kamcmd "+kind, func(t *testing.T) {
			for _, c := range commands {
				a, b := theirs.kamcmd(t, kind, strings.Fields(c.args)...), ours.kamcmd(t, kind, strings.Fields(c.args)...)
				compare(t, c.args, c.shape, a, b)
			}
		})
	}
	t.Run("kamctl", func(t *testing.T) {
		for _, c := range commands {
			args := append([]string{"rpc"}, strings.Fields(c.args)...)
			a, b := theirs.kamctl(t, args...), ours.kamctl(t, args...)
			shape := c.shape
			if shape == aFault {
				if !strings.Contains(b.stdout, `"code": 400,`) {
					t.Errorf("%s: got %v, want a fault", c.args, b)
				}
				continue
			}
			if shape != "" {
				// The document around it is as Kamailio's; what kamcmd prints shows the values.
				shape = `^\{\n  "jsonrpc":  "2\.0",\n  "result": [^\x00]*,\n  "id": ID\n\}\n$`
			}
			compare(t, c.args, shape, a.masked(), b.masked())
		}
		for _, args := range [][]string{{"stats", "siptrace"}, {"rpc", "siptrace.status", ""}, {"rpc", "siptrace.status", "check "}, {"rpc", "siptrace.status", " on"}, {"rpc", "siptrace.status", "s:1"}} {
			compare(t, strings.Join(args, " "), "", theirs.kamctl(t, args...).masked(), ours.kamctl(t, args...).masked())
		}
		version := `"result": "(kamailio|siptraced) \S+ \(\S+/linux\) ",`
		compare(t, "core.version", version, theirs.kamctl(t, "rpc", "core.version").masked(), ours.kamctl(t, "rpc", "core.version").masked())
	})
	t.Run("forms of kamcmd", func(t *testing.T) {
		for _, args := range [][]string{
			{"-v", "siptrace.status", "check"},
			{"-f", "<%v>", "siptrace.status", "check"},
			{"-f", "%v\n", "stats.fetch", "siptrace:"},
			{"stats.fetch", "traced_requests", "siptrace:", "siptrace:traced_replies"},
			{"siptrace.status", ""},
			{"siptrace.status", "check "},
			{"siptrace.status", " on"},
			{"--", "siptrace.status", "-3"},
			{"help", "siptrace.status"},
		} {
			a, b := theirs.kamcmd(t, "unix", args...), ours.kamcmd(t, "unix", args...)
			compare(t, strings.Join(args, " "), "", a, b)
		}
		for name, e := range map[string]ends{"Kamailio": theirs, "siptraced": ours} {
			for _, args := range [][]string{{"-s", e.ctl}, {"-s", "unix:" + e.ctl}, {"-s", e.udp}} {
				p := execute(t, "", nil, kamcmd, append(args, "siptrace.status", "check")...)
				if p.stdout != "Enabled\n" || p.exit != 0 {
					t.Errorf("%s: kamcmd %q: %v", name, args, p)
				}
			}
		}
	})
	t.Run("list of methods", func(t *testing.T) {
		known := strings.Fields(theirs.kamcmd(t, "unix", "system.listMethods").stdout)
		for _, kind := range kinds {
			list := strings.Fields(ours.kamcmd(t, kind, "system.listMethods").stdout)
			if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
				t.Errorf("%s: not sorted, or doubles: %q", kind, list)
			}
			for _, c := range commands {
				m := strings.Fields(c.args)[0]
				if slices.Contains(known, m) != slices.Contains(list, m) {
					t.Errorf("%s: %s: listed by Kamailio: %v, by siptraced: %v", kind, m, slices.Contains(known, m), slices.Contains(list, m))
				}
			}
		}
		if p := ours.kamctl(t, "rpc", "system.listMethods"); !strings.Contains(p.stdout, "\n    \"siptrace.status\",\n") {
			t.Errorf("kamctl: %v", p)
		}
	})
	t.Run("interactive", func(t *testing.T) {
		stdin := "siptrace.status check\nhelp siptrace.status\nsiptrace.status \"on\"\n  siptrace.status   off  \nsiptrace.status check\n" +
			"siptrace.status\nnosuch.method\nstats.get_statistics siptrace:\ncnt.get siptrace traced_requests\n\nsiptrace.status on\nquit\n"
		for _, kind := range kinds {
			var p [2]printed
			for i, e := range []ends{theirs, ours} {
				p[i] = execute(t, stdin, nil, kamcmd, "-s", e.address(kind))
			}
			compare(t, kind, "", p[0], p[1])
			if n := strings.Count(p[1].stdout, "kamcmd> "); n != 12 {
				t.Errorf("%s: %d prompts, want 12: %v", kind, n, p[1])
			}
		}
	})
}

func compare(t *testing.T, name, shape string, theirs, ours printed) {
	t.Helper()
	theirs.took, ours.took = 0, 0
	if shape != "" {
		re := regexp.MustCompile(shape)
		if !re.MatchString(theirs.stdout) {
			t.Errorf("%s: Kamailio's own answer has another shape: %v", name, theirs)
		}
		if !re.MatchString(ours.stdout) {
			t.Errorf("%s: siptraced: %v\nKamailio: %v", name, ours, theirs)
		}
		theirs.stdout, ours.stdout = "", ""
	}
	if theirs != ours {
		t.Errorf("%s:\nsiptraced: %v\n Kamailio: %v", name, ours, theirs)
	}
}
