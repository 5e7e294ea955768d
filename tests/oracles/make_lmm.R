# Make the reference values of tests/mixed with R: lme4's fits, and its criterion at fixed theta.
# Usage: Rscript tests/oracles/make_lmm.R tests/oracles
# Writes lmm.json (values in full double precision) and lmm/<name>.csv (data). Made with R 4.2.2, lme4 1.1-31.
suppressMessages({library(lme4); library(jsonlite)})
folder <- commandArgs(TRUE)[1]
dir.create(file.path(folder, "lmm"), showWarnings = FALSE, recursive = TRUE)
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5))

# -- data: lme4's own sets, and three simulated panels of models x prompts ---------------------------------
panel <- function(models, prompts, runs, sd_model, sd_category, sd_prompt, sd_both, sd_residual) {
  d <- expand.grid(model = sprintf("m%02d", 1:models), prompt = sprintf("p%03d", 1:prompts), seed = 1:runs,
                   stringsAsFactors = TRUE)
  d$category <- factor(sprintf("c%d", (as.integer(d$prompt) - 1) %/% (prompts / 6) + 1))
  d$size <- log10(70e6 * (3e9 / 70e6)^((as.integer(d$model) - 1) / (models - 1)))
  both <- matrix(rnorm(models * 6, 0, sd_both), models)
  # The order of the draws below fixes the data; keep it.
  d$y <- 2.4 + 0.1 * d$size + rnorm(models, 0, sd_model)[d$model] + rnorm(6, 0, sd_category)[d$category] +
    rnorm(prompts, 0, sd_prompt)[d$prompt] + both[cbind(as.integer(d$model), as.integer(d$category))] +
    rnorm(nrow(d), 0, sd_residual)
  d
}
set.seed(20260525)
data(list = c("sleepstudy", "Penicillin", "Pastes", "cake", "Dyestuff", "Dyestuff2"), package = "lme4")
audit <- panel(17, 72, 1, .26, .41, .30, .15, .87)
slopes <- panel(12, 48, 2, .3, .3, .3, .1, .6)
slopes$x <- rnorm(nrow(slopes))
slope <- rnorm(12, 0, .4)
slopes$y <- slopes$y + (0.5 + slope[as.integer(slopes$model)]) * slopes$x
null_model <- panel(17, 72, 1, 0, .4, .3, 0, .9)
set.seed(5)
unbalanced <- expand.grid(model = factor(sprintf("m%d", 1:6)), prompt = factor(sprintf("p%02d", 1:10)))
unbalanced$family <- factor(ifelse(as.integer(unbalanced$model) <= 3, "a", "b"))
unbalanced$category <- factor(c("x", "y")[1 + as.integer(unbalanced$prompt) %% 2])
unbalanced$y <- 1 + rnorm(6, 0, .7)[unbalanced$model] + rnorm(10, 0, .4)[unbalanced$prompt] +
  .3 * (unbalanced$category == "y") + rnorm(60)
unbalanced <- unbalanced[sort(sample(60, 37)), ]
sets <- list(sleepstudy = sleepstudy, Penicillin = Penicillin, Pastes = Pastes, cake = cake, Dyestuff = Dyestuff,
             Dyestuff2 = Dyestuff2, audit = audit, slopes = slopes, null_model = null_model, unbalanced = unbalanced)
for (n in names(sets)) write.csv(sets[[n]], file.path(folder, "lmm", paste0(n, ".csv")), row.names = FALSE)

# -- fits --------------------------------------------------------------------------------------------------
labelled <- function(m) list(rows = I(rownames(m)), cols = I(colnames(m)), values = unname(as.matrix(m)))
values <- function(name, formula, reml) {
  m <- suppressMessages(suppressWarnings(lmer(formula, sets[[name]], REML = reml, control = tight)))
  list(data = name, formula = paste(deparse(formula), collapse = " "), REML = reml, nobs = nobs(m),
       criterion = unname(getME(m, "devcomp")$cmp[if (reml) "REML" else "dev"]), loglik = as.numeric(logLik(m)),
       df = attr(logLik(m), "df"), AIC = AIC(m), BIC = BIC(m), fixef = as.list(fixef(m)),
       vcov = labelled(as.matrix(vcov(m))), theta = as.list(getME(m, "theta")), sigma = sigma(m),
       singular = isSingular(m, tol = 1e-4), varcorr = as.data.frame(VarCorr(m)),
       ranef = head(as.data.frame(ranef(m, condVar = TRUE)), 12), fitted = head(unname(fitted(m)), 10))
}
formulas <- list(
  sleepstudy = list(Reaction ~ Days + (Days | Subject), Reaction ~ Days + (Days || Subject),
                    Reaction ~ Days + (1 | Subject)),
  Penicillin = list(diameter ~ 1 + (1 | plate) + (1 | sample)),
  Pastes = list(strength ~ 1 + (1 | batch/cask), strength ~ 1 + (1 | sample)),
  cake = list(angle ~ recipe * temperature + (1 | recipe:replicate)),
  Dyestuff = list(Yield ~ 1 + (1 | Batch)), Dyestuff2 = list(Yield ~ 1 + (1 | Batch)),
  audit = list(y ~ 1 + (1 | model) + (1 | category),
               y ~ 1 + (1 | model) + (1 | category/prompt) + (1 | model:category),
               y ~ category + (1 | model) + (1 | prompt),
               y ~ size + category + (1 | model) + (1 | category:prompt)),
  slopes = list(y ~ x + (x | model) + (1 | prompt), y ~ x + (1 + x || model) + (1 | category/prompt)),
  null_model = list(y ~ 1 + (1 | model) + (1 | category/prompt)))
cases <- list()
for (n in names(formulas)) for (f in formulas[[n]]) for (reml in c(TRUE, FALSE))
  cases[[length(cases) + 1]] <- values(n, f, reml)

# -- the criterion as a function: the cleanest comparison of all -------------------------------------------
at <- function(name, formula, theta, reml) list(
  data = name, formula = paste(deparse(formula), collapse = " "), REML = reml, theta = theta,
  criterion = lmer(formula, sets[[name]], REML = reml, devFunOnly = TRUE)(theta))
fixed_theta <- list(
  at("sleepstudy", Reaction ~ Days + (Days | Subject), c(.9, .1, .2), TRUE),
  at("sleepstudy", Reaction ~ Days + (Days | Subject), c(.9, .1, .2), FALSE),
  at("sleepstudy", Reaction ~ Days + (Days || Subject), c(1, .25), TRUE),
  at("Penicillin", diameter ~ 1 + (1 | plate) + (1 | sample), c(1.5, 3.5), TRUE),
  at("Pastes", strength ~ 1 + (1 | batch/cask), c(3.5, 1.3), FALSE),
  at("unbalanced", y ~ family * category + (1 | model) + (1 | prompt), c(.4, .3), TRUE),
  at("unbalanced", y ~ family * category + (1 | model) + (1 | prompt), c(0, .3), TRUE))
meta <- list(R = R.version.string, lme4 = as.character(packageVersion("lme4")))
write_json(list(meta = meta, cases = cases, fixed_theta = fixed_theta), file.path(folder, "lmm.json"), digits = NA,
           auto_unbox = TRUE, null = "null")
