package flexicli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"siptraced/rpc"
)

// Sizes in bytes: the client reads one reply of at most MaxReply.
const (
	MaxRequest = 65535
	MaxReply   = 65535
)

// ErrReadOnly is what [Store.Set] returns for a setting that can't be changed at
// run time.
var ErrReadOnly = errors.New("flexicli: setting cannot be changed at run time")

// Section is a named group of settings, such as "global".
type Section struct {
	Name, Help string
	Settings   []Setting
}

// Setting is one value of a [Section].
type Setting struct {
	Name  string // without the section: "log-level"
	Value string
	Help  string
}

// Store holds the settings. Its methods are called from several goroutines.
type Store interface {
	Sections() []Section
	// Set changes what path ("global/log-level") names; it is asked only for
	// settings that are in Sections. The value is all that follows the path,
	// blanks included. peer is for the log.
	Set(ctx context.Context, peer rpc.Peer, path, value string) error
}

// Answer runs one request and returns its reply.
func Answer(ctx context.Context, s Store, peer rpc.Peer, request []byte) []byte {
	reply := answer(ctx, s, peer, strings.TrimRight(string(request), "\r\n\x00"))
	return []byte(reply[:min(len(reply), MaxReply)])
}

func answer(ctx context.Context, s Store, peer rpc.Peer, request string) string {
	command, args, _ := strings.Cut(request, " ")
	path, value, hasValue := strings.Cut(args, " ")
	switch command {
	case "CONFIG_GET", "GET":
		if path == "" {
			return "Error - 'CONFIG_GET' command expects 1 argument: <path>"
		}
		return show(s, path, false)
	case "CONFIG_LIST", "LIST":
		if path == "" {
			return "Error - 'CONFIG_LIST' command expects 1 argument: <section>"
		}
		return show(s, path, true)
	case "CONFIG_SET", "SET":
		if path == "" || !hasValue {
			return "Error - 'CONFIG_SET' command expects 2 arguments: <path> <value>"
		}
		return set(ctx, s, peer, path, value)
	}
	return "Error - Unknown command: " + command
}

func set(ctx context.Context, s Store, peer rpc.Peer, path, value string) string {
	section, setting := find(s, path)
	if section == nil && path != "all" {
		return "Error - Not found: " + path
	}
	err := ErrReadOnly // a section can't be set at all
	if setting != nil {
		err = s.Set(ctx, peer, path, value)
	}
	switch {
	case err == nil:
		return path + ": " + value
	case errors.Is(err, ErrReadOnly):
		word, _, _ := strings.Cut(value, " ")
		return fmt.Sprintf("Error - Failed to set \"%s\": setting cannot be set while Flexisip is running", word)
	}
	return fmt.Sprintf("Error - Failed to set %s: %v", path, err)
}

// show writes what is at path: names and help, or full names and values.
func show(s Store, path string, help bool) string {
	item := func(section Section, st Setting) string {
		if help {
			return st.Name + ": " + st.Help
		}
		return section.Name + "/" + st.Name + ": " + st.Value
	}
	var b strings.Builder
	if path == "all" {
		for _, section := range s.Sections() {
			b.WriteString("[" + section.Name + "]")
			if help {
				b.WriteString(": " + section.Help)
			}
			b.WriteString("\r\n")
		}
		return b.String()
	}
	section, setting := find(s, path)
	switch {
	case section == nil:
		return "Error - Not found: " + path
	case setting != nil:
		return item(*section, *setting)
	}
	for _, st := range section.Settings {
		b.WriteString(item(*section, st) + "\r\n")
	}
	return b.String()
}

// find returns the section that path begins with, and the setting in it if path
// goes that far; nil, nil when there is no such thing.
func find(s Store, path string) (*Section, *Setting) {
	name, rest, deep := strings.Cut(path, "/")
	for _, section := range s.Sections() {
		if section.Name != name {
			continue
		}
		if !deep {
			return &section, nil
		}
		for i := range section.Settings {
			if section.Settings[i].Name == rest {
				return &section, &section.Settings[i]
			}
		}
	}
	return nil, nil
}
