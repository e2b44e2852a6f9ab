package flexicli_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"siptraced/rpc"
	"siptraced/rpc/flexicli"
)

// store is a Store with a filter, a level and a setting that is fixed.
type store struct {
	mu            sync.Mutex // covers filter and level
	filter, level string
	help          string
}

func (s *store) Sections() []flexicli.Section {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []flexicli.Section{
		{Name: "global", Help: "Of the whole program." + s.help, Settings: []flexicli.Setting{
			{Name: "log-level", Value: s.level, Help: "Level of the log file."},
			{Name: "contextual-log-filter", Value: s.filter, Help: "Which messages to log in full."},
			{Name: "log-directory", Value: "/var/log", Help: "Where the log file is."},
		}},
		{Name: "event-logs", Help: "Event log."},
	}
}

func (s *store) Set(_ context.Context, _ rpc.Peer, path, value string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch path {
	case "global/log-level":
		if value != "debug" && value != "error" {
			return fmt.Errorf("%q is not a level", value)
		}
		s.level = value
	case "global/contextual-log-filter":
		s.filter = value
	case "global/log-directory":
		return flexicli.ErrReadOnly
	default:
		return errors.New("asked for a setting that is not listed")
	}
	return nil
}

func TestAnswer(t *testing.T) {
	const filter = "request.method == 'REGISTER' && (from.uri.user contains '+33')"
	s := &store{level: "error"}
	for _, tc := range []struct{ request, want string }{
		{"CONFIG_SET global/contextual-log-filter " + filter, "global/contextual-log-filter: " + filter},
		{"CONFIG_GET global/contextual-log-filter", "global/contextual-log-filter: " + filter},
		{"SET global/contextual-log-filter a  b", "global/contextual-log-filter: a  b"},
		{"CONFIG_SET global/contextual-log-filter ", "global/contextual-log-filter: "},
		{"GET global/contextual-log-filter", "global/contextual-log-filter: "},
		{"CONFIG_SET global/log-level debug", "global/log-level: debug"},
		{"CONFIG_GET global/log-level\n", "global/log-level: debug"},
		{"CONFIG_SET global/log-level loud", `Error - Failed to set global/log-level: "loud" is not a level`},
		{"GET global/log-level", "global/log-level: debug"},
		{"CONFIG_SET global/log-directory /tmp x", `Error - Failed to set "/tmp": setting cannot be set while Flexisip is running`},
		{"CONFIG_SET global on", `Error - Failed to set "on": setting cannot be set while Flexisip is running`},
		{"CONFIG_SET all on", `Error - Failed to set "on": setting cannot be set while Flexisip is running`},
		{"CONFIG_SET global/nothing 1", "Error - Not found: global/nothing"},
		{"CONFIG_SET nothing/log-level 1", "Error - Not found: nothing/log-level"},
		{"CONFIG_GET nothing", "Error - Not found: nothing"},
		{"CONFIG_GET global/log-level/x", "Error - Not found: global/log-level/x"},
		{"CONFIG_GET", "Error - 'CONFIG_GET' command expects 1 argument: <path>"},
		{"LIST", "Error - 'CONFIG_LIST' command expects 1 argument: <section>"},
		{"SET global/log-level", "Error - 'CONFIG_SET' command expects 2 arguments: <path> <value>"},
		{"CONFIG_LIST all", "[global]: Of the whole program.\r\n[event-logs]: Event log.\r\n"},
		{"CONFIG_GET all", "[global]\r\n[event-logs]\r\n"},
		{"CONFIG_LIST global", "log-level: Level of the log file.\r\ncontextual-log-filter: Which messages to log in full.\r\nlog-directory: Where the log file is.\r\n"},
		{"LIST global/log-level", "log-level: Level of the log file."},
		{"CONFIG_GET global", "global/log-level: debug\r\nglobal/contextual-log-filter: \r\nglobal/log-directory: /var/log\r\n"},
		{"CONFIG_GET event-logs", ""},
		{"REGISTRAR_CLEAR sip:a@b", "Error - Unknown command: REGISTRAR_CLEAR"},
		{"config_get all", "Error - Unknown command: config_get"},
		{"", "Error - Unknown command: "},
	} {
		if got := string(flexicli.Answer(t.Context(), s, rpc.Peer{}, []byte(tc.request))); got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.request, got, tc.want)
		}
	}
}

func TestReplyFitsOneRead(t *testing.T) {
	s := &store{help: strings.Repeat("x", 70000)}
	if got := flexicli.Answer(t.Context(), s, rpc.Peer{}, []byte("LIST all")); len(got) != flexicli.MaxReply {
		t.Errorf("got %d bytes, want %d", len(got), flexicli.MaxReply)
	}
}

// A value that was taken is what the next GET shows.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"SET global/contextual-log-filter x", "GET all", "LIST global/", "SET  ", "GET\x00", " "} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		s := &store{level: "error"}
		got := string(flexicli.Answer(t.Context(), s, rpc.Peer{}, request))
		if len(got) > flexicli.MaxReply {
			t.Fatalf("reply of %d bytes", len(got))
		}
		path, _, _ := strings.Cut(got, ":")
		if s.level+s.filter == "error" || strings.HasPrefix(got, "Error") {
			return
		}
		if again := string(flexicli.Answer(t.Context(), s, rpc.Peer{}, []byte("GET "+path))); again != got {
			t.Fatalf("set %q, get %q", got, again)
		}
	})
}
