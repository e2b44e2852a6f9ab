package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

// A person at a terminal is told from a program that reads a file or a pipe.
func TestIsTerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if isTerminal(&logged{}) || isTerminal(file) || !isTerminal(terminal) {
		t.Errorf("buffer %v, file %v, terminal %v; want false, false, true", isTerminal(&logged{}), isTerminal(file), isTerminal(terminal))
	}
}
