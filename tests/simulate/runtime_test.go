package simulate

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// change is a replacement in a source file: old stands there once.
type change struct{ file, old, new string }

// runtimeChanges make Go's runtime repeat itself: a simulation that begins with
// beginSimulation(seed) chooses the same ways through selects, maps, timers of one
// moment and math/rand each time. Goroutines are not interrupted, so that with one
// processor they take turns in one order; a goroutine that waits for a mutex counts
// as one that waits, and the clock goes on; and the clock can be set.
var runtimeChanges = []change{
	{
		"runtime/rand.go",
		"\tglobalRand.state.Init(*seed)\n",
		"\t*seed = [32]byte{1} // the hashes of maps, too\n\tglobalRand.state.Init(*seed)\n",
	},
	{"runtime/rand.go", "// rand32 is uint32(rand())", `// simulation is the state of the generator that replaces others in a simulation; 0:
// there is none.
var simulation, simulatedMaps uint64

// simulatedRand is splitmix64.
//
//go:nosplit
//go:linkname simulatedRand
func simulatedRand() uint64 {
	if simulation == 0 {
		return rand()
	}
	simulation += 0x9e3779b97f4a7c15
	z := simulation
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

//go:linkname beginSimulation
func beginSimulation(seed uint64) {
	simulation = seed
	simulatedMaps = simulatedRand()
	getg().m.p.ptr().schedtick = 0 // each 61st looks elsewhere for work
}

// rand32 is uint32(rand())`},
	// A map that a package makes when it is first used must not change what others get.
	{
		"runtime/rand.go",
		"func maps_rand() uint64 {\n",
		"func maps_rand() uint64 {\n\tif simulation != 0 {\n\t\treturn simulatedMaps\n\t}\n",
	},
	{
		"runtime/rand.go",
		"func rand() uint64 {\n",
		"func rand() uint64 {\n\tif simulation != 0 {\n\t\treturn simulatedMaps\n\t}\n",
	},
	{"math/rand/v2/rand.go", "//go:linkname runtime_rand runtime.rand\n", "//go:linkname runtime_rand runtime.simulatedRand\n"},
	{"math/rand/rand.go", "//go:linkname runtime_rand runtime.rand\n", "//go:linkname runtime_rand runtime.simulatedRand\n"},
	{"os/tempfile.go", "//go:linkname runtime_rand runtime.rand\n", "//go:linkname runtime_rand runtime.simulatedRand\n"},
	{"runtime/select.go", "j := cheaprandn(uint32(norder + 1))", "j := uint32(simulatedRand() % uint64(norder+1))"},
	{"runtime/time.go", "t.rand = cheaprand()", "t.rand = uint32(simulatedRand())"},
	{
		"runtime/time.go",
		"\t\tsec = bubble.now / (1000 * 1000 * 1000)\n\t\tnsec = int32(bubble.now % (1000 * 1000 * 1000))\n",
		"\t\tsec = (bubble.now + clockStep) / (1000 * 1000 * 1000)\n\t\tnsec = int32((bubble.now + clockStep) % (1000 * 1000 * 1000))\n\t\treturn sec, nsec, bubble.now\n",
	},
	{
		"runtime/time.go",
		"// A timer is a potentially",
		"// clockStep is how far the clock of the wall in a bubble is from the monotonic one.\nvar clockStep int64\n\n//go:linkname setClockStep\nfunc setClockStep(ns int64) { clockStep = ns }\n\n// A timer is a potentially",
	},
	{
		"runtime/proc.go",
		"func retake(now int64) uint32 {\n",
		"func retake(now int64) uint32 {\n\tif simulation != 0 {\n\t\treturn 0\n\t}\n",
	},
	{
		"runtime/runtime2.go",
		"\twaitReasonSynctestRun:           true,\n",
		"\twaitReasonSynctestRun:           true,\n\twaitReasonSyncMutexLock:         true,\n\twaitReasonSyncRWMutexLock:       true,\n\twaitReasonSyncRWMutexRLock:      true,\n",
	},
}

// overlay is what the go command reads in place of files: see go help build.
type overlay struct {
	dir     string
	Replace map[string]string
}

func newOverlay(t *testing.T) *overlay {
	return &overlay{dir: t.TempDir(), Replace: map[string]string{}}
}

// change makes a change in a file, beside those that it has already.
func (o *overlay) change(file, old, replacement string) error {
	source := file
	if o.Replace[file] != "" {
		source = o.Replace[file]
	}
	b, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	if n := strings.Count(string(b), old); n != 1 {
		return fmt.Errorf("%s has the text %d times, not once:\n%s", file, n, old)
	}
	return o.write(file, strings.Replace(string(b), old, replacement, 1))
}

// write gives a file other contents; there need be no such file.
func (o *overlay) write(file, text string) error {
	if o.Replace[file] == "" {
		o.Replace[file] = filepath.Join(o.dir, fmt.Sprintf("%d-%s", len(o.Replace), filepath.Base(file)))
	}
	return os.WriteFile(o.Replace[file], []byte(text), 0o600)
}

// runtime makes the changes in Go's runtime.
func (o *overlay) runtime() error {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return err
	}
	for _, c := range runtimeChanges {
		file := filepath.Join(strings.TrimSpace(string(root)), "src", c.file)
		if err := o.change(file, c.old, c.new); err != nil {
			return fmt.Errorf("this version of Go has another runtime than the simulation knows: %w", err)
		}
	}
	return nil
}

// room is the package that has the simulation.
const room = "siptraced/cmd/siptraced/internal/simulate"

// build builds the simulation.
func (o *overlay) build() (binary string, err error) {
	text, err := json.Marshal(o)
	if err != nil {
		return "", err
	}
	list := filepath.Join(o.dir, "overlay.json")
	if err := os.WriteFile(list, text, 0o600); err != nil {
		return "", err
	}
	binary = filepath.Join(o.dir, "simulate.test")
	out, err := exec.Command("go", "test", "-c", "-tags", "simulation", "-overlay", list, "-o", binary, room).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go test -c: %w\n%s", err, out)
	}
	return binary, nil
}
