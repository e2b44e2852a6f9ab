package sipmsg

import "testing"

func TestAddr(t *testing.T) {
	tests := []struct {
		name, in string
		display  string
		uri      string
		tag      string
		bad      bool
	}{
		{name: "name-addr", in: `"A. Bell" <sip:bell@example.com>;tag=1`, display: "A. Bell", uri: "sip:bell@example.com", tag: "1"},
		{name: "escaped quote", in: `"a\"<b" <sip:a@b>;tag=1`, display: `a\"<b`, uri: "sip:a@b", tag: "1"},
		{name: "escaped backslash", in: `"a\\" <sip:a@b>;tag=1`, display: `a\\`, uri: "sip:a@b", tag: "1"},
		{name: "token and quoted", in: `a "b" <sip:a@b>`, display: `a "b"`, uri: "sip:a@b"},
		{name: "two quoted", in: `"a" "b" <sip:a@b>`, display: `"a" "b"`, uri: "sip:a@b"},
		{name: "empty quotes", in: `"" <sip:a@b>;tag=1`, uri: "sip:a@b", tag: "1"},
		{name: "addr-spec", in: "sip:a@b;x;tag=1", uri: "sip:a@b", tag: "1"},
		{name: "addr-spec, blanks", in: "sip:a@b ; tag\t=\r\n 1", uri: "sip:a@b", tag: "1"},
		{name: "last tag", in: "<sip:a@b>;tag=1;x;Tag=2;y=3", uri: "sip:a@b", tag: "2"},
		{name: "last tag empty", in: "<sip:a@b>;tag=1;tag=", uri: "sip:a@b"},
		{name: "tag without value", in: "<sip:a@b>;tag;x=1", uri: "sip:a@b"},
		{name: "tag in quotes", in: `<sip:a@b>;tag="x;tag=y\"";z`, uri: "sip:a@b", tag: `x;tag=y\"`},
		{name: "tag in another value", in: `<sip:a@b>;x=";tag=1"`, uri: "sip:a@b"},
		{name: "tag with a comma", in: "<sip:a@b>;tag=1,2", uri: "sip:a@b", tag: "1,2"},
		{name: "other names", in: "<sip:a@b>;stag=1;tags=2;ta=3", uri: "sip:a@b"},
		{name: "empty parameters", in: "<sip:a@b>;;tag=1; ;", uri: "sip:a@b", tag: "1"},
		{name: "brackets only", in: "<>", uri: ""},

		{name: "stray text", in: "<sip:a@b> x;tag=1", uri: "sip:a@b", bad: true},
		{name: "stray text after the tag", in: "<sip:a@b>;tag=1 x", uri: "sip:a@b", tag: "1", bad: true},
		{name: "second address", in: "<sip:a@b>, <sip:c@d>;tag=1", uri: "sip:a@b", bad: true},
		{name: "quoted tag without end", in: `<sip:a@b>;tag="1`, uri: "sip:a@b", bad: true},
		{name: "quote ends in a backslash", in: `"a\`, bad: true},
		{name: "no bracket's end", in: "<sip:a@b;tag=1", bad: true},
		{name: "name only", in: `"a"`, bad: true},
		{name: "parameters only", in: ";tag=1", bad: true},
		{name: "empty", in: "", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var a Addr
			ok := a.parse([]byte(tt.in), false)
			if string(a.Raw) != tt.in || string(a.Display()) != tt.display || string(a.URI) != tt.uri ||
				string(a.Tag) != tt.tag || ok == tt.bad {
				t.Errorf("got %q %q %q, %v", a.Display(), a.URI, a.Tag, ok)
			}
		})
	}
}

func TestContact(t *testing.T) {
	for _, tt := range []struct{ in, display, uri string }{
		{"*", "", "*"},
		{"sip:a@b", "", "sip:a@b"},
		{"sip:a@b, sip:c@d", "", "sip:a@b"},
		{"<sip:a@b;x>;expires=5,<sip:c@d>", "", "sip:a@b;x"},
		{`"A, B" <sip:a,b@c>;q=0.5 , <sip:c@d>`, "A, B", "sip:a,b@c"},
	} {
		var m Message
		if err := m.Parse([]byte("SIP/2.0 200 OK\r\nm: " + tt.in + "\r\nContact: <sip:z@z>\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if c := m.Contact; string(c.Raw) != tt.in || string(c.Display()) != tt.display || string(c.URI) != tt.uri {
			t.Errorf("%s: got %q %q %q", tt.in, c.Raw, c.Display(), c.URI)
		}
	}
}

// TestDisplayRaw: the display name as it stands in the message.
func TestDisplayRaw(t *testing.T) {
	for _, tt := range []struct{ in, raw, display string }{
		{`"A. Bell"  <sip:a@b>`, `"A. Bell"`, "A. Bell"},
		{`A Bell <sip:a@b>`, "A Bell", "A Bell"},
		{`"a" "b" <sip:a@b>`, `"a" "b"`, `"a" "b"`},
		{`"" <sip:a@b>`, `""`, ""},
		{`<sip:a@b>`, "", ""},
		{`sip:a@b`, "", ""},
	} {
		var a Addr
		a.parse([]byte(tt.in), false)
		if string(a.DisplayRaw) != tt.raw || string(a.Display()) != tt.display || (a.DisplayRaw == nil) != (tt.raw == "") || (a.Display() == nil) != (tt.raw == "") {
			t.Errorf("%s: got %q, %q", tt.in, a.DisplayRaw, a.Display())
		}
	}
}
