package main

import "github.com/gin-gonic/gin"

func page(gin.IRoutes) {}
