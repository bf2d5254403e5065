package main

import (
	"github.com/gin-gonic/gin"

	"example.com/keytrail/web"
)

// page serves the console's files: "/" and what it loads.
func page(r gin.IRoutes) {
	files := gin.WrapH(web.Handler())
	for _, path := range web.Paths() {
		r.GET(path, files)
	}
}
