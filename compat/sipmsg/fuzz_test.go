package sipmsg

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"unsafe"
)

func seed(f *testing.F) {
	for _, m := range torture(f) {
		f.Add(m)
	}
	f.Add(invite)
	f.Add(ok200)
	f.Add([]byte("\r\n\r\n"))
	f.Add([]byte("sip/2.0 20\n:\ni\n : <\"\nf:\"\\"))
}

func FuzzParse(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, again Message
		err := m.Parse(b)
		if err2 := again.Parse(b); (err == nil) != (err2 == nil) || !reflect.DeepEqual(m, again) {
			t.Fatalf("two parses differ: %+v, %+v", m, again)
		}
		if err != nil {
			if !errors.Is(err, ErrNotSIP) {
				t.Fatal(err)
			}
			return
		}
		inside := func(what string, s []byte) {
			t.Helper()
			if len(s) == 0 {
				return
			}
			first := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
			p := uintptr(unsafe.Pointer(unsafe.SliceData(s)))
			if p < first || p+uintptr(len(s)) > first+uintptr(len(b)) {
				t.Fatalf("%s is not within the input", what)
			}
		}
		visit(reflect.ValueOf(m), "Message", inside)
		for h := range m.Headers() {
			inside("name", h.Name)
			inside("value", h.Value())
			inside("raw value", h.Raw)
			if got, ok := m.Header(string(h.Name)); !ok {
				t.Fatalf("header %q not found", h.Name)
			} else {
				inside("Header", got)
			}
		}
		first := true
		for via := range m.Vias() {
			visit(reflect.ValueOf(via), "Via", inside)
			if first && !reflect.DeepEqual(via, m.Via) {
				t.Fatalf("top Via %+v, first of Vias %+v", m.Via, via)
			}
			first = false
		}
		if first != (m.Via.Raw == nil) {
			t.Fatalf("top Via %q, but Vias has none", m.Via.Raw)
		}
		for _, u := range [][]byte{m.RequestURI, m.From.URI, m.To.URI, m.Contact.URI} {
			if p, ok := ParseURI(u); ok && len(p.Host) == 0 && len(p.User) == 0 {
				t.Fatalf("%q is a URI of nothing", u)
			}
		}
		if m.IsRequest == (m.Status != nil) || m.IsRequest == (m.Method == nil) {
			t.Fatalf("neither request nor reply: %+v", m)
		}
		cut := m
		if n := cut.CutNULs(); len(cut.Raw)+n != len(b) || len(bytes.Trim(b[len(cut.Raw):], "\x00")) > 0 || !bytes.HasSuffix(cut.Raw, cut.Body) {
			t.Fatalf("%d NULs cut, %q is left", n, cut.Raw)
		}
		if m.ContentLength < -1 {
			t.Fatalf("ContentLength %d", m.ContentLength)
		}
	})
}

// visit calls inside for every byte slice in v.
func visit(v reflect.Value, name string, inside func(string, []byte)) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			visit(v.Field(i), name+"."+v.Type().Field(i).Name, inside)
		}
	case reflect.Slice:
		inside(name, v.Bytes())
	}
}

// What Split cuts out is SIP for Parse, and does not depend on what follows.
func FuzzSplit(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		skip, n, err := Split(b)
		if skip < 0 || n < 0 || skip+n > len(b) || err != nil && n != 0 || n > MaxMessage {
			t.Fatalf("%d, %d, %v of %d bytes", skip, n, err, len(b))
		}
		if n == 0 {
			return
		}
		var m Message
		if err := m.Parse(b[skip : skip+n]); err != nil {
			t.Fatal(err)
		}
		if m.Defects&(NoBlankLine|ShortBody|LongBody|BadContentLength) != 0 {
			t.Fatalf("framed with %v", m.Defects)
		}
		if s, k, err := Split(b[:skip+n]); s != skip || k != n || err != nil {
			t.Fatalf("alone: %d, %d, %v, want %d, %d", s, k, err, skip, n)
		}
		if s, k, err := Split(b[:skip+n-1]); k != 0 || err != nil {
			t.Fatalf("one byte less: %d, %d, %v", s, k, err)
		}
	})
}
