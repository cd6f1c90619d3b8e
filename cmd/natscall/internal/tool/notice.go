package tool

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcschema"
)

// fetch gets the schema of a service from an instance, or from any if instance is "". Where
// instances have different schemas it is that of the newest version, and notice says so.
func (s *Session) fetch(ctx context.Context, t *Target, instance string) (set *descriptorpb.FileDescriptorSet, notice string, err error) {
	groups := t.Service.SchemaGroups()
	if instance == "" && len(groups) > 1 && groups[0].Hash != "" {
		instance = groups[0].Newest().ID
		// It may be slow: then there is time left for the others.
		one, cancel := context.WithTimeout(ctx, s.Services.Limit)
		defer cancel()
		if set, err = s.fetchFrom(one, t, &instance); err == nil {
			return set, differing(t.Service.Name, groups, instance), nil
		}
		instance = "" // it may have gone, or may not be asked alone
	}
	ask := instance == ""
	set, err = s.fetchFrom(ctx, t, &instance)
	if err == nil && ask && len(groups) > 1 {
		notice = differing(t.Service.Name, groups, instance)
	}
	return set, notice, err
}

// fetchFrom gets the schema from an instance, or from any if *instance is "", and sets *instance to
// the one that has answered.
func (s *Session) fetchFrom(ctx context.Context, t *Target, instance *string) (*descriptorpb.FileDescriptorSet, error) {
	note := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		err := next(ctx, call)
		*instance = call.Instance()
		return err
	}
	opts := []rpc.CallOption{rpc.WithInterceptors(note)}
	if *instance != "" {
		opts = append(opts, rpc.WithInstance(*instance))
	}
	return rpcschema.Fetch(ctx, s.Bare(), t.Bare(), opts...)
}

// differing says in a line that instances have different schemas, and which one is used.
func differing(service string, groups []discover.SchemaGroup, used string) string {
	var parts []string
	for _, g := range groups {
		part := fmt.Sprintf("%s of version %s (%s)", cutHash(g.Hash), strings.Join(g.Versions(), ", "), ids(g.Instances))
		if slices.ContainsFunc(g.Instances, func(i discover.Instance) bool { return i.ID == used }) {
			part += ", which is used"
		}
		parts = append(parts, part)
	}
	return fmt.Sprintf("instances of %s have different schemas: %s; --instance takes that of one", service, strings.Join(parts, "; "))
}

// ids names instances, if there are not too many.
func ids(instances []discover.Instance) string {
	const most = 3
	var out []string
	for _, i := range instances[:min(most, len(instances))] {
		out = append(out, i.ID)
	}
	text := strings.Join(out, ", ")
	if more := len(instances) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func cutHash(hash string) string {
	if hash == "" {
		return "none"
	}
	return discover.ShortHash(hash)
}

// Warn writes a line to stderr, if there is something to say.
func (t *Tool) Warn(asJSON bool, text string) {
	switch {
	case text == "":
	case asJSON: // as errors are
		_ = t.Err.Line(map[string]string{"warning": text}) // there is nobody left to tell
	default:
		fmt.Fprintln(t.Err, t.Err.Note("warning:"), t.Err.Plain(text))
	}
}
