package loop_test

import (
	"os"
	"path/filepath"
	"testing"

	"siptraced/cmd/siptraced/internal/loop"
)

func open(t *testing.T, file string) (loop.ID, bool) {
	t.Helper()
	id, made, err := loop.OpenID(file)
	if err != nil {
		t.Fatal(err)
	}
	return id, made
}

// The id lasts; a copy of the directory and a damaged file get another one.
func TestOpenID(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "instance")
	first, made := open(t, file)
	if !made || first == (loop.ID{}) {
		t.Fatalf("%v, made %v", first, made)
	}
	if again, made := open(t, file); again != first || made {
		t.Errorf("%v after a restart, want %v", again, first)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "instance")
	if err := os.WriteFile(elsewhere, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if other, made := open(t, elsewhere); other == first || !made {
		t.Error("a copy has the same id")
	}
	if err := os.WriteFile(file, text[:len(text)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if other, made := open(t, file); other == first || !made {
		t.Error("a damaged file has the same id")
	}
	if _, _, err := loop.OpenID(filepath.Join(dir, "missing", "instance")); err == nil {
		t.Error("no error for a directory that is not there")
	}
}
