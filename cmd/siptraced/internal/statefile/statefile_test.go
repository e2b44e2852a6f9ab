package statefile

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWriteRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	got := map[string]string{"as": "before"}
	if err := Read(path, &got); err != nil || got["as"] != "before" {
		t.Errorf("no file: got %v, %v", got, err)
	}
	for _, want := range []map[string]string{{"a": "long value of the first"}, {"b": "2"}} {
		if err := Write(path, want); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		if err := Read(path, &got); err != nil || !maps.Equal(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info, err)
	}
}

// A write that fails leaves the old file, and no other beside it.
func TestFailure(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	if err := Write(path, 1); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, func() {}); err == nil {
		t.Error("a function was written")
	}
	if err := Write(filepath.Join(dir, "none", "state"), 1); err == nil {
		t.Error("written into a directory that is not there")
	}
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(taken, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(taken, 1); err == nil {
		t.Error("a directory was replaced")
	}
	n := 0
	if err := Read(path, &n); err != nil || n != 1 {
		t.Errorf("got %d, %v, want 1", n, err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 2 {
		t.Errorf("got %v, %v, want state and taken", list, err)
	}
}

func TestDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, []byte(`{"a":`), 0o600); err != nil {
		t.Fatal(err)
	}
	var v map[string]string
	err := Read(path, &v)
	if err == nil || !strings.HasPrefix(err.Error(), path+": ") || !strings.HasSuffix(err.Error(), "; fix or remove it") {
		t.Errorf("got %v", err)
	}
}

// TestMake: made with its mode whatever the umask is, also where a link leads to; one
// that is there stays as it is.
func TestMake(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("there"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"link": "behind", "chain": "link2", "link2": at("absolute"), "loop": "loop", "astray": "none/file"} {
		if err := os.Symlink(target, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path, made, text string
		mode             os.FileMode
		err              error
	}{
		{path: "new", made: "new", mode: Mode},
		{path: "new", made: "new", mode: Mode},
		{path: "there", made: "there", mode: 0o600, text: "kept"},
		{path: "link", made: "behind", mode: Mode},
		{path: "chain", made: "absolute", mode: Mode},
		{path: "loop", err: unix.ELOOP},
		{path: "astray", err: os.ErrNotExist},
		{path: "none/file", err: os.ErrNotExist},
	} {
		t.Run(c.path, func(t *testing.T) {
			if err := Make(at(c.path)); !errors.Is(err, c.err) {
				t.Fatalf("got %v, want %v", err, c.err)
			}
			if c.err != nil {
				return
			}
			info, err := os.Lstat(at(c.made))
			if err != nil || info.Mode() != c.mode {
				t.Errorf("got %v, %v, want mode %v", info, err, c.mode)
			}
			if text, err := os.ReadFile(at(c.made)); err != nil || string(text) != c.text {
				t.Errorf("got %q, %v, want %q", text, err, c.text)
			}
		})
	}
}
