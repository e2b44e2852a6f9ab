package loop

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"siptraced/cmd/siptraced/internal/statefile"
)

// ID is an instance of siptraced in the path of a message.
type ID [8]byte

// String is the id in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MaxHops is how many instances a message may pass. One more counts as a loop,
// whatever the ids are.
const MaxHops = 16

// AppendTo appends path with the id behind it to dst.
func (id ID) AppendTo(dst, path []byte) []byte { return append(append(dst, path...), id[:]...) }

// In reports whether a message with this path was here before, or passed more
// than MaxHops instances.
func (id ID) In(path []byte) bool {
	if len(path) > MaxHops*len(id) {
		return true
	}
	for len(path) >= len(id) {
		if bytes.Equal(path[:len(id)], id[:]) {
			return true
		}
		path = path[len(id):]
	}
	return false
}

// NewID makes an id for an instance that keeps none.
func NewID() (id ID) {
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return id
}

// idFile is the content of the file. Place is where it was written: a copy of
// the file elsewhere must not give two instances one id.
type idFile struct {
	ID    string `json:"id"`
	Place string `json:"place"`
}

// OpenID reads the id in a file. It makes a new one, and reports that it did, if
// there is no file, or if the file was written on another machine or in another
// directory: two instances with one id would drop each other's messages.
func OpenID(file string) (id ID, made bool, err error) {
	place, err := placeOf(filepath.Dir(file))
	if err != nil {
		return id, false, fmt.Errorf("loop: id of this instance: %w", err)
	}
	var f idFile
	// A damaged file is as good as none.
	if statefile.Read(file, &f) == nil && f.Place == place {
		if b, err := hex.DecodeString(f.ID); err == nil && len(b) == len(id) {
			copy(id[:], b)
			return id, false, nil
		}
	}
	id = NewID()
	if err := statefile.Write(file, idFile{ID: id.String(), Place: place}); err != nil {
		return id, true, fmt.Errorf("loop: id of this instance: %w", err)
	}
	return id, true, nil
}

// placeOf is a hash of what a copy of the directory has not in common with it:
// the machine's id and name, the addresses of its network devices, and the
// directory's inode.
func placeOf(dir string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	machine, _ := os.ReadFile("/etc/machine-id") // machine-id(5); containers may have none
	host, _ := os.Hostname()
	h := sha256.New()
	fmt.Fprintf(h, "%d %q %q %q", st.Ino, machine, host, devices())
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// devices are the hardware addresses of network devices. Virtual interfaces
// (bridges, tunnels, those of containers) get a new one each time.
func devices() (list []string) {
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		if _, err := os.Stat(filepath.Join("/sys/class/net", i.Name, "device")); err == nil {
			list = append(list, i.HardwareAddr.String())
		}
	}
	slices.Sort(list)
	return list
}
