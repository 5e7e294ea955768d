# Make the reference values of tests/mixed/test_explained.py with R: ICC, R², and what R² loses without predictors.
# Usage: Rscript tests/oracles/make_explained.R tests/oracles (after make_lmm.R, whose data it reads)
# Writes explained.json. Made with R 4.2.2, lme4 1.1-31, performance 0.10.2.
suppressMessages({library(lme4); library(performance); library(jsonlite)})
folder <- commandArgs(TRUE)[1]
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5))
read <- function(name) {
  d <- read.csv(file.path(folder, "lmm", paste0(name, ".csv")), stringsAsFactors = TRUE)
  if (name == "cake") d$temperature <- factor(d$temperature, ordered = TRUE)
  if (name == "cake") d$replicate <- factor(d$replicate)
  d
}
fit <- function(formula, d, reml) suppressMessages(suppressWarnings(lmer(as.formula(formula), d, REML = reml, control = tight)))
number <- function(x) if (is.null(x) || length(x) == 0) NULL else unname(as.numeric(x))
one <- function(name, formula, reml) {
  d <- read(name)
  m <- fit(formula, d, reml)
  i <- suppressWarnings(suppressMessages(icc(m)))
  r <- suppressWarnings(suppressMessages(r2_nakagawa(m)))
  known <- is.list(i)
  by <- NULL
  if (known && all(lengths(ranef(m)) == 1)) {
    g <- suppressWarnings(suppressMessages(icc(m, by_group = TRUE)))
    by <- as.list(setNames(g$ICC, g$Group))
  }
  list(data = name, formula = formula, REML = reml,
       icc = if (known) list(adjusted = number(i$ICC_adjusted), unadjusted = number(i$ICC_unadjusted)), by = by,
       r2 = if (known) list(marginal = number(r$R2_marginal), conditional = number(r$R2_conditional)))
}
# Part R²: the difference of two models of the same rows.
less <- function(name, formula, reduced, reml) {
  d <- read(name)
  m <- fit(formula, d, reml)
  whole <- suppressWarnings(r2_nakagawa(m))
  parts <- lapply(reduced, function(f) {
    r <- suppressWarnings(r2_nakagawa(fit(f, d, reml)))
    list(marginal = number(whole$R2_marginal) - number(r$R2_marginal),
         conditional = number(whole$R2_conditional) - number(r$R2_conditional))
  })
  list(data = name, formula = formula, REML = reml, parts = parts)
}
cases <- lapply(fromJSON(file.path(folder, "lmm.json"), simplifyVector = FALSE)$cases,
                function(x) one(x$data, x$formula, x$REML))
for (reml in c(TRUE, FALSE))
  cases[[length(cases) + 1]] <- one("unbalanced", "y ~ family * category + (1 | model) + (1 | prompt)", reml)
part <- list()
for (reml in c(TRUE, FALSE)) {
  part[[length(part) + 1]] <- less(
    "audit", "y ~ size + category + (1 | model) + (1 | prompt)",
    list(size = "y ~ category + (1 | model) + (1 | prompt)", category = "y ~ size + (1 | model) + (1 | prompt)",
         both = "y ~ 1 + (1 | model) + (1 | prompt)"), reml)
  part[[length(part) + 1]] <- less(
    "slopes", "y ~ x + category + (x | model) + (1 | prompt)",
    # x cannot be left out here: performance reads a slope's variance off the fixed part's columns.
    list(category = "y ~ x + (x | model) + (1 | prompt)"), reml)
}
meta <- list(R = R.version.string, lme4 = as.character(packageVersion("lme4")),
             performance = as.character(packageVersion("performance")))
write_json(list(meta = meta, cases = cases, part = part), file.path(folder, "explained.json"), digits = NA,
           auto_unbox = TRUE, null = "null", pretty = TRUE)
