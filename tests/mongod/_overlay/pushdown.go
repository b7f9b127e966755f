package sqlite

import (
	"fmt"
	"strings"

	"github.com/FerretDB/FerretDB/internal/backends/sqlite/metadata"
	"github.com/FerretDB/FerretDB/internal/handler/sjson"
	"github.com/FerretDB/FerretDB/internal/types"
	"github.com/FerretDB/FerretDB/internal/util/must"
)

// wherePushdown returns a WHERE clause that leaves out most documents which do not match the
// filter, by what an index answers: strings compared for equality, with `$eq` left out, and `$in`.
// The whole filter is applied to what is left, so it may let too many through, never too few.
func wherePushdown(filter *types.Document) (string, []any) {
	var conditions []string
	var args []any
	for _, key := range filter.Keys() {
		if key == "" || strings.ContainsAny(key, `$."`) {
			continue
		}
		column := fmt.Sprintf(`%s->"%s"`, metadata.DefaultColumn, key)
		switch value := must.NotFail(filter.Get(key)).(type) {
		case string:
			condition := column + " = ?"
			if key != "_id" { // an array matches by any of its elements
				condition = fmt.Sprintf("(%s OR (%s >= '[' AND %s < '\\'))", condition, column, column)
			}
			conditions = append(conditions, condition)
			args = append(args, encoded(value))
		case *types.Document:
			wanted, _ := value.Get("$in")
			list, isList := wanted.(*types.Array)
			if key != "_id" || value.Len() != 1 || !isList {
				continue
			}
			found := make([]any, 0, list.Len())
			for i := range list.Len() {
				if text, isText := must.NotFail(list.Get(i)).(string); isText {
					found = append(found, encoded(text))
				}
			}
			if len(found) < list.Len() || len(found) == 0 || len(found) > 10_000 {
				continue
			}
			marks := strings.TrimSuffix(strings.Repeat("?, ", len(found)), ", ")
			conditions = append(conditions, fmt.Sprintf("%s IN (%s)", column, marks))
			args = append(args, found...)
		}
	}
	if len(conditions) == 0 {
		return "", nil
	}
	return " WHERE " + strings.Join(conditions, " AND "), args
}

func encoded(value string) string {
	return string(must.NotFail(sjson.MarshalSingleValue(value)))
}
