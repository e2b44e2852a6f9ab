package mi_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"siptraced/rpc"
	"siptraced/rpc/mi"
)

// commands are stubs with the answers of the recorded server.
func commands(t testing.TB) *rpc.Registry {
	t.Helper()
	on := false
	reg := rpc.NewRegistry()
	methods := map[string]rpc.Handler{
		"sip_trace": func(_ context.Context, c *rpc.Call) (any, error) {
			if len(c.Params) == 0 {
				if on {
					return "on", nil
				}
				return "off", nil
			}
			switch word, _ := c.Str(0); strings.ToLower(word) {
			case "on":
				on = true
			case "off":
				on = false
			default:
				return nil, &rpc.Fault{Code: 400, Text: "Bad parameter"}
			}
			return nil, nil
		},
		"get_statistics": func(context.Context, *rpc.Call) (any, error) {
			return rpc.List{"siptrace:traced_requests = 0", "siptrace:traced_replies = 0"}, nil
		},
		"uptime": func(context.Context, *rpc.Call) (any, error) {
			return rpc.Struct{
				{Name: "Now", Value: "Sat Nov 21 05:45:58 2026"},
				{Name: "Up since", Value: "Sat Nov 21 05:45:47 2026"},
				{Name: "Up time", Value: "11 [sec]"},
			}, nil
		},
		"version": func(context.Context, *rpc.Call) (any, error) {
			return rpc.Struct{{Name: "Server", Value: "OpenSER (1.4.0dev14-notls (x86_64/linux))"}}, nil
		},
		"which": func(context.Context, *rpc.Call) (any, error) {
			return rpc.List{
				"get_statistics", "reset_statistics", "uptime", "version", "pwd", "arg", "which", "ps", "kill",
				"debug", "list_blacklists", "t_uac_dlg", "t_uac_cancel", "t_hash", "t_reply", "sip_trace",
			}, nil
		},
		"ps": func(context.Context, *rpc.Call) (any, error) {
			return rpc.Struct{
				{Name: "Process", Value: " ID=0 PID=17462 Type=attendant"},
				{Name: "Process", Value: " ID=1 PID=17463 Type=SIP receiver udp:127.0.0.1:16070 "},
				{Name: "Process", Value: " ID=2 PID=17464 Type=timer"},
				{Name: "Process", Value: " ID=3 PID=17465 Type=MI FIFO"},
			}, nil
		},
	}
	for name, h := range methods {
		if err := reg.Register(rpc.Method{Name: name, Handler: h}); err != nil {
			t.Fatal(err)
		}
	}
	return reg
}

type transcript struct {
	Request string `json:"request_hex"`
	Reply   string `json:"reply_hex"`
}

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d transcripts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var tr transcript
			if err := json.Unmarshal(text, &tr); err != nil {
				t.Fatal(err)
			}
			request, err1 := hex.DecodeString(tr.Request)
			want, err2 := hex.DecodeString(tr.Reply)
			if err1 != nil || err2 != nil || len(request) == 0 {
				t.Fatal(err1, err2, len(request))
			}
			reg := commands(t)
			if strings.Contains(file, "noparam_on") || strings.Contains(file, "garbage_then_ok") { // recorded while tracing was on
				if _, err := reg.Call(t.Context(), &rpc.Call{Method: "sip_trace", Params: []any{"on"}}); err != nil {
					t.Fatal(err)
				}
			}
			var in mi.Splitter
			in.Write(request)
			var got []byte
			for {
				r, ok, err := in.Next()
				if !ok {
					break
				}
				// The listener opens the reply FIFO first, and has none
				// for these names.
				if r.ReplyName != "" && !strings.ContainsAny(r.ReplyName, "./") {
					got = append(got, mi.Answer(t.Context(), reg, rpc.NewPeer("fifo", ""), r, err)...)
				}
			}
			if string(got) != string(want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestSplitter(t *testing.T) {
	long := strings.Repeat("x", mi.MaxRequest+10)
	type got struct {
		command, name, lines string
		err                  error
	}
	for _, tc := range []struct {
		name    string
		writes  []string
		want    []got
		pending bool
	}{
		{"byte by byte", strings.Split(":a:r\n1\n\n", ""), []got{{"a", "r", "1\n", nil}}, false},
		{"empty lines before", []string{"\n\n:a:r\n\n"}, []got{{"a", "r", "", nil}}, false},
		{"blanks behind the first line", []string{":a:r \t\r\n\n"}, []got{{"a", "r", "", nil}}, false},
		{"garbage, then a request", []string{"x\ny\n\n:a:r\n\n"}, []got{{"", "", "", mi.ErrNoCommand}, {"a", "r", "", nil}}, false},
		{"garbage without an end, then a request", []string{"x\n", ":a:r\n\n"}, []got{{"", "", "", mi.ErrNoCommand}, {"a", "r", "", nil}}, false},
		{"empty command", []string{"::r\n\n:a:r\n\n"}, []got{{"", "", "", mi.ErrNoCommand}, {"a", "r", "", nil}}, false},
		{"half a request, then another", []string{":a:r\n1\n", ":b:s\n2\n\n"}, []got{{"a", "r", "1\n", mi.ErrUnfinished}, {"b", "s", "2\n", nil}}, false},
		{"half a line, then another", []string{":a:r\n1", ":b:s\n2\n\n"}, []got{{"a", "r", "1\n", mi.ErrUnfinished}, {"b", "s", "2\n", nil}}, false},
		{"half a first line, then another", []string{":a", ":b:s\n\n"}, []got{{"", "", "", mi.ErrNoCommand}, {"b", "s", "", nil}}, false},
		{"too long and half a line, then another", []string{":a:r\n" + long, "y", ":b:s\n\n"}, []got{{"a", "r", "", mi.ErrTooLong}, {"b", "s", "", nil}}, false},
		{"a parameter with colons", []string{":a:r\nsip:x@y:5060\n\n"}, []got{{"a", "r", "sip:x@y:5060\n", nil}}, false},
		{"too long a line", []string{":a:r\n" + long, "y\n\n:b:s\n\n"}, []got{{"a", "r", "", mi.ErrTooLong}, {"b", "s", "", nil}}, false},
		{"too long in lines", []string{":a:r\n" + strings.Repeat("0123456\n", 9000), "\n:b:s\n\n"}, []got{{"a", "r", "", mi.ErrTooLong}, {"b", "s", "", nil}}, false},
		{"too long without a line", []string{long, long, "\n\n:b:s\n\n"}, []got{{"", "", "", mi.ErrTooLong}, {"b", "s", "", nil}}, false},
		{"only half", []string{":a:r\n1\n"}, nil, true},
		{"only half a line", []string{":a"}, nil, true},
		{"garbage only", []string{"x\n"}, []got{{"", "", "", mi.ErrNoCommand}}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var in mi.Splitter
			var all []got
			for _, w := range tc.writes {
				in.Write([]byte(w))
				for {
					r, ok, err := in.Next()
					if !ok {
						break
					}
					if errors.Is(err, mi.ErrUnfinished) {
						r.Lines = "1\n" // dropped with the rest
					}
					all = append(all, got{r.Command, r.ReplyName, r.Lines, err})
				}
			}
			if !reflect.DeepEqual(all, tc.want) {
				t.Errorf("got %v, want %v", all, tc.want)
			}
			if in.Pending() != tc.pending {
				t.Errorf("pending %v, want %v", in.Pending(), tc.pending)
			}
			in.Reset()
			if in.Pending() {
				t.Error("pending after Reset")
			}
		})
	}
}

func TestParams(t *testing.T) {
	for _, tc := range []struct {
		lines string
		want  []mi.Param
		err   error
	}{
		{"", nil, nil},
		{"on\n", []mi.Param{{"", "on"}}, nil},
		{"  a b\t\n\r\n", []mi.Param{{"", "a b"}}, nil},
		{`" a "` + "\n", []mi.Param{{"", " a "}}, nil},
		{`"a" ` + "\n", []mi.Param{{"", "a"}}, nil},
		{"x::on\n", []mi.Param{{"x", "on"}}, nil},
		{" x :: \"o n\"\n", []mi.Param{{"x", "o n"}}, nil},
		{"x::\n", []mi.Param{{"x", ""}}, nil},
		{"::v\n", []mi.Param{{"", "v"}}, nil},
		{"x::y::z\n", []mi.Param{{"x", "y::z"}}, nil},
		{"a:b\n", []mi.Param{{"", "a:b"}}, nil},
		{`"a\"b"` + "\n", []mi.Param{{"", `a"b`}}, nil},
		{`"\"b"` + "\n", []mi.Param{{"", `"b`}}, nil},
		{"\"a\nb\"\nc\n", []mi.Param{{"", "a\nb"}, {"", "c"}}, nil},
		{"\"a::b\"\n", []mi.Param{{"", "a::b"}}, nil},
		{"o\"n\n", nil, mi.ErrParse},
		{"\"on\n", nil, mi.ErrParse},
		{"\"on\" x\n", nil, mi.ErrParse},
		{"x\"::on\n", nil, mi.ErrParse},
		{"x::o\"n\n", nil, mi.ErrParse},
	} {
		got, err := mi.Request{Lines: tc.lines}.Params()
		if !reflect.DeepEqual(got, tc.want) || !errors.Is(err, tc.err) {
			t.Errorf("%q: got %v, %v, want %v, %v", tc.lines, got, err, tc.want, tc.err)
		}
	}
}

func TestReplyKeepsToItsLines(t *testing.T) {
	got := string(mi.AppendReply(nil, 200, "O\nK", rpc.List{"a\n\nb", int64(-3), 1.5, true, rpc.Struct{{Name: "n\n", Value: nil}}}))
	if want := "200 O K\na  b\n-3\n1.5\ntrue\nn :: \n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseReply(t *testing.T) {
	for _, tc := range []struct {
		in    string
		lines []string
		err   string
	}{
		{"200 OK\n\n", nil, ""},
		{"200 OK\non\n\n", []string{"on"}, ""},
		{"200 OK\na\nb\n\n", []string{"a", "b"}, ""},
		{"400 Bad parameter\n\n", nil, "400 Bad parameter"},
		{"500 command 'x' not available\n", nil, "500 command 'x' not available"},
		{"", nil, mi.ErrReply.Error()},
		{"hello\n", nil, mi.ErrReply.Error()},
	} {
		lines, err := mi.ParseReply([]byte(tc.in))
		text := ""
		if err != nil {
			text = err.Error()
		}
		if !reflect.DeepEqual(lines, tc.lines) || text != tc.err {
			t.Errorf("%q: got %q, %q, want %q, %q", tc.in, lines, text, tc.lines, tc.err)
		}
	}
}

// Whatever came before, a whole request after an empty line is read.
func FuzzSplitter(f *testing.F) {
	for _, s := range []string{":a:r\n\n", "x\n", ":a:r\n\"x\n", ":a:r\n1\n:b", "\n\n", ":::", strings.Repeat("y", 70000)} {
		f.Add([]byte(s), 7)
	}
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		var in mi.Splitter
		var last mi.Request
		read := func(b []byte) {
			in.Write(b)
			for {
				r, ok, err := in.Next()
				if !ok {
					break
				}
				if err == nil && (r.Command == "" || strings.Contains(r.Lines, "\n\n") || len(r.Lines) > mi.MaxRequest) {
					t.Fatalf("request %q", r)
				}
				_, _ = r.Params()
				last = r
			}
		}
		cut = min(max(cut, 0), len(b))
		read(b[:cut])
		read(b[cut:])
		read([]byte("\n\n:good:name\n\"v\"\n\n"))
		if want := (mi.Request{Command: "good", ReplyName: "name", Lines: "\"v\"\n"}); last != want {
			t.Fatalf("got %q, want %q", last, want)
		}
		if in.Pending() {
			t.Fatal("pending")
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	reg := commands(b)
	request := []byte(":sip_trace:openser_receiver_77\non\n\n")
	var in mi.Splitter
	b.ReportAllocs()
	b.SetBytes(int64(len(request)))
	for b.Loop() {
		in.Write(request)
		r, ok, err := in.Next()
		if !ok || len(mi.Answer(b.Context(), reg, rpc.Peer{}, r, err)) == 0 {
			b.Fatal("no answer")
		}
	}
}
